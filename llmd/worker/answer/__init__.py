"""From tokens to text, thoughts and tool calls."""
