"""The daemon: composition root, HTTP server, signals and systemd."""
