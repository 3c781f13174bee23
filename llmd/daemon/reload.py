"""SIGHUP: read the configuration again and apply what can change while the daemon runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import msgspec

from llmd import config
from llmd.config import Config
from llmd.errors import ConfigError

log = logging.getLogger(__name__)

LIVE = {
    "server.allowed_hosts",
    "server.body_deadline_s",
    "server.drain_s",
    "server.header_deadline_s",
    "server.max_queue",
    "server.max_streams",
    "log.format",
    "log.level",
}
"""What takes effect at once; all else does at the next start."""


class Reloader:
    """Hold the configuration in force; swap it for a new one only when the whole is right."""

    def __init__(self, path: Path, present: Config, apply: Callable[[Config], None]) -> None:
        self.config = present
        self._path = path
        self._apply = apply
        # The threads of the HTTP server are counted once, at the start.
        self._max_requests = present.server.max_streams + present.server.max_queue

    def on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Handle SIGHUP, in the main thread. A bad file changes nothing."""
        try:
            self._reload()
        except Exception:
            # It would go through the main loop and end the daemon.
            log.exception("the configuration is not reloaded, the old one stays")

    def _reload(self) -> None:
        try:
            new = config.load(self._path)
        except ConfigError as error:
            log.error("the configuration is not reloaded, the old one stays: %s", error.message)
            return
        server = new.server
        if server.max_streams + server.max_queue > self._max_requests:
            log.error(
                "the configuration is not reloaded: max_streams and max_queue may not grow "
                "beyond %d together without a restart",
                self._max_requests,
            )
            return
        changed = sorted(_changed(self.config, new))
        self._apply(new)
        self.config = new
        later = [name for name in changed if name not in LIVE]
        log.info("the configuration is reloaded: %s", ", ".join(changed) or "nothing changed")
        if later:
            log.warning("%s: only after a restart", ", ".join(later))


def _changed(old: Config, new: Config) -> Iterator[str]:
    """Yield the names of the options that differ."""
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    for section, options in before.items():
        for name, value in options.items():
            if after[section][name] != value:
                yield f"{section}.{name}"
