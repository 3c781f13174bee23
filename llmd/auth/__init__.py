"""Keys: how a secret is made and checked, and the gates a request passes."""
