"""Make keys, and check the key of each request."""
