"""The one check of the configuration, for the start, for a reload and for `llmd config check`."""

from __future__ import annotations

from pathlib import Path

from llmd import config
from llmd.config import Config
from llmd.errors import ConfigError
from llmd.store.db import parse_url


def load(path: Path) -> Config:
    """Return the configuration in `path` and the files beside it, with every option checked.

    Raise `ConfigError` with the file and the option that is wrong.
    """
    loaded = config.load(path)
    try:
        parse_url(loaded.store.url)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from error
    return loaded
