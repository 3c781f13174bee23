"""GGUF files on disk: the library of them and a safe reader of their headers."""
