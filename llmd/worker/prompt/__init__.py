"""From a chat template or a text to the tokens of a prompt."""
