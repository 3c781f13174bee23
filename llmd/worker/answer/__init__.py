"""Turn the tokens of an answer into text, thoughts and tool calls."""
