"""GGUF files on disk: the model library, and a safe reader of GGUF headers."""
