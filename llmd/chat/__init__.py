"""The use cases of the daemon, without HTTP, SQL or llama.cpp."""
