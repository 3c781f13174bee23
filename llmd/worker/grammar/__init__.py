"""Grammars that bound an answer."""
