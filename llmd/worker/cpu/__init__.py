"""Threads, cores and the CPU code of llama.cpp that this processor runs."""
