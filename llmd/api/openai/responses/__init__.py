"""OpenAI's routes under ``/v1/responses``."""
