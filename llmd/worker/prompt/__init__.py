"""Turn the prompt of a request into tokens, by a chat template if need be."""
