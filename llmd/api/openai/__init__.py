"""The routes that clients made for OpenAI's API call."""
