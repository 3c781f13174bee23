"""The HTTP API: routes, access and bodies. The only folder that imports falcon."""
