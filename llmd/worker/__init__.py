"""The child process that runs one model: scheduler, slots and llama.cpp."""
