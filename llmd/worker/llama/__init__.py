"""Run models with llama.cpp. No other package imports llama_cpp."""
