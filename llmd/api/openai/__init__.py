"""The routes of OpenAI's API, and those of llama.cpp's server that its clients use."""
