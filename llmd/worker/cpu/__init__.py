"""Threads, cores, and the variant of llama.cpp's CPU code for this processor."""
