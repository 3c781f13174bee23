"""The API description: OpenAPI, and a page for people."""
