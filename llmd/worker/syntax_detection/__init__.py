"""Learn the syntax of a model from its chat template."""
