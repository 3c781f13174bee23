"""The child process that runs one model with llama.cpp."""
