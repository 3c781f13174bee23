"""Inference as the daemon sees it: submit, cancel and switch, and the child that does the work."""
