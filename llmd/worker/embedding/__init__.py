"""The queue of texts to embed."""
