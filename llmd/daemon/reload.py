"""Reloading at SIGHUP: read the configuration again and apply the options that can change live."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import msgspec

from llmd.config import Config
from llmd.daemon import configuration
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
"""Options that take effect at a reload. All others need a restart."""


class Reloader:
    """Hold the configuration in force. Replace it only if the whole new one is valid."""

    def __init__(self, path: Path, current: Config, apply: Callable[[Config], None]) -> None:
        """`apply` is called with each new configuration."""
        self.config = current
        self._path = path
        self._apply = apply
        # The number of threads of the HTTP server is fixed at the start.
        self._max_requests = current.server.max_streams + current.server.max_queue

    def on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Handle SIGHUP, in the main thread. A wrong file changes nothing."""
        try:
            self._reload()
        except Exception:
            # Otherwise the exception would end the main loop and with it the daemon.
            log.exception("the configuration is not reloaded, the old one stays in force")

    def _reload(self) -> None:
        try:
            new = configuration.load(self._path)
        except ConfigError as error:
            log.error(
                "the configuration is not reloaded, the old one stays in force: %s", error.message
            )
            return
        server = new.server
        if server.max_streams + server.max_queue > self._max_requests:
            log.error(
                "the configuration is not reloaded: without a restart, max_streams and max_queue "
                "together may be at most %d",
                self._max_requests,
            )
            return
        changed = sorted(_changed(self.config, new))
        self._apply(new)
        self.config = new
        not_applied = [name for name in changed if name not in LIVE]
        log.info("the configuration is reloaded: %s", ", ".join(changed) or "nothing changed")
        if not_applied:
            log.warning("a restart is needed to apply %s", ", ".join(not_applied))


def _changed(old: Config, new: Config) -> Iterator[str]:
    """Yield the names of the options that differ, such as `server.listen`."""
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    for section, options in before.items():
        for name, value in options.items():
            if after[section][name] != value:
                yield f"{section}.{name}"
