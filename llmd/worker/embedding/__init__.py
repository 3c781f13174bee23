"""Vectors: the queue of texts to embed."""
