"""llmd: one Linux machine as the LLM server of a LAN."""

__version__ = "0.1.0"
