"""The lock that keeps a second daemon from serving the same database."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from llmd.errors import ConfigError
from llmd.store.db import create_file, sqlite_path

log = logging.getLogger(__name__)


@contextmanager
def exclusive_use(url: str) -> Iterator[None]:
    """Lock an SQLite file against other daemons, and create it if it is missing.

    Commands of llmd do not take this lock, because they may run beside a daemon. Other databases
    are not locked: several daemons can share them. Raise `ConfigError` if another daemon has the
    lock. The kernel releases it when the process ends, however that happens.

    SQLite's own locks (fcntl) are independent of this one (flock). But the kernel drops those of a
    process when it closes any descriptor of the file. So this process may have a connection to the
    database only within the block.
    """
    path = sqlite_path(url)
    if path is None:
        yield
        return
    create_file(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"store.url: cannot open {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"store.url: another llmd serves the database {path}: stop it first, "
                "or name another database"
            ) from error
        except OSError as error:
            # Some network file systems have no such locks.
            log.warning("cannot lock the database %s: %s", path, error.strerror)
        yield
    finally:
        os.close(descriptor)
