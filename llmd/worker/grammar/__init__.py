"""Grammars that constrain an answer."""
