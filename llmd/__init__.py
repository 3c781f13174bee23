"""llmd turns one Linux machine into the LLM server of a LAN."""

__version__ = "0.1.0"
