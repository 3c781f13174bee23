"""The commands, with a file for each or for each group; the name is the one that users type."""
