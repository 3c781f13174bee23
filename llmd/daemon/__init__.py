"""The running service: composition root, HTTP server and systemd."""
