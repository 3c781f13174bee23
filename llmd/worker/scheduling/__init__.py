"""Which sequences run, and what a step holds."""
