"""The life of the daemon: start all parts, serve until a signal arrives, shut down in order."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from pathlib import Path

from llmd import __version__, logs
from llmd.api.app import create_access, create_app
from llmd.api.services import Services
from llmd.config import Config
from llmd.daemon import configuration
from llmd.daemon.allocator import return_freed_memory
from llmd.daemon.composition import build
from llmd.daemon.http import HttpServer
from llmd.daemon.reload import Reloader
from llmd.daemon.reporter import Reporter
from llmd.daemon.shutdown import Shutdown
from llmd.daemon.systemd import Systemd, extend
from llmd.errors import StoreError, StoreFull
from llmd.store import migrate
from llmd.store.db import Database
from llmd.store.integrity import require_intact
from llmd.store.keys import Keys
from llmd.store.lock import exclusive_use

log = logging.getLogger(__name__)

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2}

_OPEN_S = 1800.0
"""Seconds of start time to request for opening the database.

A large database takes minutes to upgrade and check.
"""


def serve(config_path: Path) -> int:
    """Run the daemon until SIGTERM or SIGINT, and return its exit code.

    Raise `ConfigError` or `SchemaError` before anything is served.
    """
    return_freed_memory()
    # A signal that arrives while the parts are created must wait until they can be closed.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    systemd = Systemd()
    settings = configuration.load(config_path)
    logs.configure(settings.log)
    log.info("llmd %s starts with %s", __version__, config_path)
    with exclusive_use(settings.store.url):
        _run(config_path, settings, systemd)
    log.info("llmd has stopped")
    return 0


def _run(config_path: Path, settings: Config, systemd: Systemd) -> None:
    """Create all parts, serve, and close them in order."""
    systemd.notify("STATUS=opening the database", extend(_OPEN_S))
    db = open_database(settings.store.url)
    services = build(settings, db)
    access = create_access(services, settings.server)
    app = create_app(services, access, settings.server)
    server = HttpServer(app, settings.server, systemd.sockets())
    reporter = Reporter(systemd, services.engine.status, lambda: _is_alive(server, services))

    def apply(new: Config) -> None:
        logs.configure(new.log)
        access.allow_hosts(new.server.allowed_hosts)
        services.admission.set_limits(new.server.max_streams, new.server.max_queue)
        server.set_deadlines(new.server)
        services.selector.start_missing()

    reloader = Reloader(config_path, settings, apply)
    shutdown = Shutdown(
        services.admission, lambda: reloader.config.server.drain_s, on_begin=reporter.stop
    )
    signal.signal(signal.SIGTERM, shutdown.on_signal)
    signal.signal(signal.SIGINT, shutdown.on_signal)
    signal.signal(signal.SIGUSR2, shutdown.on_drained)
    signal.signal(signal.SIGHUP, reloader.on_signal)
    _warn_without_keys(services.keys)
    services.selector.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    log.info("listening on %s", ", ".join(server.urls))
    reporter.start()
    try:
        server.run()
    finally:
        reporter.close()
        services.embeddings.close()
        services.engine.close()
        server.close()
        db.close()


def open_database(url: str) -> Database:
    """Upgrade the schema, after a backup, then check the database and return it.

    A database of this version is opened on a full disk too. It can be read then, and written as
    soon as there is space. Raise `SchemaError` if the database is damaged or newer than this
    version, and `StoreFull` if there is no space for an upgrade.
    """
    try:
        upgrade = migrate.upgrade(url, now=int(time.time()))
        if upgrade.backup is not None:
            log.info("the database was upgraded; the backup is %s", upgrade.backup)
        return _checked(Database(url))
    except StoreFull as error:
        db = Database(url, is_only=True)
        try:
            is_current = migrate.revision_of(db) == migrate.head()
        except StoreError:
            db.close()
            raise
        if not is_current:
            db.close()
            raise
        log.error(
            "%s. Until then llmd only reads: nothing new can be stored. Other commands of llmd "
            "cannot use the database until llmd is restarted",
            error.message,
        )
        return _checked(db)


def _checked(db: Database) -> Database:
    """Return the database if it is intact, else close it. Raise `SchemaError`."""
    try:
        require_intact(db)
    except StoreError:
        db.close()
        raise
    return db


def _is_alive(server: HttpServer, services: Services) -> bool:
    """Return whether the daemon itself works. If the database hangs, do not return.

    An engine or a database that fails does not count, because restarting the daemon would fix
    neither. The engine has its own supervisor, and requests report errors of the database.
    """
    with contextlib.suppress(StoreError):
        services.settings.selection()
    return server.is_responsive()


def _warn_without_keys(keys: Keys) -> None:
    if not keys.count_admins(int(time.time())):
        log.warning("there is no admin key yet: create one with 'llmd init'")
