"""The daemon's side of inference: submit and cancel requests, switch models, run the worker."""
