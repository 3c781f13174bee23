"""The use cases of the daemon. Nothing here knows HTTP, SQL or llama.cpp."""
