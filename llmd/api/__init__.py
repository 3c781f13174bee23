"""The HTTP API: routes, access and bodies. No other package imports falcon."""
