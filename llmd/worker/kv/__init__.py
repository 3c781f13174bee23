"""KV states: in slots, in RAM and on the disk."""
