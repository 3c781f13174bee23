"""The configuration of the daemon: its options, their bounds, and how they are read from files.

Each section is a frozen struct that is passed to the constructors that need it. There is no
global configuration.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from llmd.codecs import Codec
from llmd.config.option_errors import option_error, unknown_name
from llmd.errors import ConfigError

_URL_PASSWORD = re.compile(r"(://[^:/@]*:).*(?=@)|([?&]password=)[^&]*")

_Path = Annotated[str, Meta(pattern="^/[^\0]*$", description="an absolute path")]
_OptionalPath = Annotated[
    str, Meta(pattern="^(/[^\0]*)?$", description='an absolute path, or "" for the default')
]
_FileName = Annotated[
    str,
    Meta(pattern="^[^/\0]*$", description='a file name without a folder, or "" for the default'),
]
_Url = Annotated[
    str,
    Meta(
        pattern="^[a-z][a-z0-9_+]*://.",
        description='a database URL such as "sqlite:////var/lib/llmd/llmd.db"',
    ),
]
_AllowedHost = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_.:\[\]-]+$",
        description="a list of host names or addresses without scheme or path",
    ),
]
_Origin = Annotated[
    str,
    Meta(
        pattern=r"^(\*|https?://[A-Za-z0-9_.:\[\]-]+)$",
        description='a list of origins such as "https://chat.example.org" (no path), or "*"',
    ),
]


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the sections: the options of one TOML table."""


class Server(_Section, frozen=True, kw_only=True):
    """The section of the HTTP server: its addresses, and the number and size of requests."""

    listen: Annotated[tuple[str, ...], Meta(min_length=1)] = ("0.0.0.0:5000",)
    max_streams: Annotated[int, Meta(ge=1, le=256)] = 8
    max_queue: Annotated[int, Meta(ge=0, le=1024)] = 64
    max_body_bytes: Annotated[int, Meta(ge=1024, le=67_108_864)] = 1_048_576
    header_deadline_s: Annotated[float, Meta(ge=0.5, le=300)] = 10.0
    body_deadline_s: Annotated[float, Meta(ge=0.5, le=3600)] = 60.0
    drain_s: Annotated[float, Meta(ge=0, le=600)] = 20.0
    allowed_hosts: tuple[_AllowedHost, ...] = ()
    cors_origins: tuple[_Origin, ...] = ()


class Store(_Section, frozen=True, kw_only=True):
    """The section of the database with keys, profiles and sessions."""

    url: _Url = "sqlite:////var/lib/llmd/llmd.db"


class Models(_Section, frozen=True, kw_only=True):
    """The section of the GGUF files: their folder, and the one loaded if no profile names one."""

    dir: _Path = "/var/lib/llmd/models"
    packaged_dir: _Path = "/usr/share/llmd/models"
    default: _FileName = ""
    embedding: _FileName = ""


class Engine(_Section, frozen=True, kw_only=True):
    """Size and threads of the worker process that runs the model."""

    library_dir: _OptionalPath = ""
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    threads_batch: Annotated[int, Meta(ge=0, le=1024)] = 0
    context: Annotated[int, Meta(ge=256, le=16_777_216)] = 32_768
    parallel: Annotated[int, Meta(ge=1, le=256)] = 8
    batch: Annotated[int, Meta(ge=16, le=4096)] = 384
    draft: Annotated[int, Meta(ge=0, le=16)] = 7
    kv_type: Literal["f16", "q8_0"] = "f16"
    kv_unified: bool = False
    flash_attention: Literal["auto", "on", "off"] = "auto"
    load_timeout_s: Annotated[float, Meta(ge=1, le=86_400)] = 600.0
    stall_s: Annotated[float, Meta(ge=1, le=3600)] = 30.0


class Cache(_Section, frozen=True, kw_only=True):
    """The section of the KV states of idle sessions: their folder, and how many bytes are kept."""

    dir: _Path = "/var/cache/llmd"
    ram_bytes: Annotated[int, Meta(ge=0, le=2**50)] = 536_870_912
    disk_bytes: Annotated[int, Meta(ge=0, le=2**50)] = 4_294_967_296


class Auth(_Section, frozen=True, kw_only=True):
    """The cost of checking a key, and the limits on wrong keys."""

    argon2: Literal["large", "small", "cheapest"] = "small"
    max_failures_per_address: Annotated[int, Meta(ge=1, le=10_000)] = 10
    max_failures_per_key: Annotated[int, Meta(ge=1, le=10_000)] = 5
    cache_ttl_s: Annotated[int, Meta(ge=1, le=86_400)] = 600


class Log(_Section, frozen=True, kw_only=True):
    """The section of the log: what is logged, and in which format."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "journal", "text", "json"] = "auto"
    prompts: bool = False


class Config(_Section, frozen=True, kw_only=True):
    """The whole configuration, one struct per section. Every option has a default."""

    server: Server = field(default_factory=Server)
    store: Store = field(default_factory=Store)
    models: Models = field(default_factory=Models)
    engine: Engine = field(default_factory=Engine)
    cache: Cache = field(default_factory=Cache)
    auth: Auth = field(default_factory=Auth)
    log: Log = field(default_factory=Log)


_CONFIGS: Codec[Config] = Codec(Config)
_SECTIONS: dict[str, type[_Section]] = {f.name: f.type for f in msgspec.structs.fields(Config)}

_MIN_CONTEXT_PER_SEQUENCE = 128
_FLASH_ATTENTION = ("engine", "flash_attention")


def load(path: Path) -> Config:
    """Read `path`, then the other `parts` of the configuration, and check them together.

    Tables are merged. A scalar or list in a later file replaces the earlier one. Raise ConfigError
    with a line for each wrong option: its file, its name and its valid values.
    """
    values: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
    sources: dict[tuple[str, str], Path] = {}
    errors: list[str] = []
    for file in [path, *parts(path)]:
        for section, table in read_file(file).items():
            if section not in _SECTIONS:
                errors.append(f"{file}: [{section}]: {unknown_name('section', section, _SECTIONS)}")
            elif not isinstance(table, dict):
                errors.append(
                    f"{file}: {section}: not a table: write [{section}] above its options"
                )
            else:
                values[section] |= table
                sources |= {(section, key): file for key in table}
    for (section, key), file in sources.items():
        error = option_error(_SECTIONS[section], key, values[section][key])
        if error:
            errors.append(f"{file}: {section}.{key}: {error}")
    if errors:
        raise ConfigError("\n".join(errors))
    config = _CONFIGS.convert(values)
    _check_combinations(config, sources, path)
    return config


def to_toml(config: Config) -> str:
    """Return `config` as a TOML file that sets every option.

    A password in `store.url` is shown as `***`.
    """
    lines: list[str] = []
    for section, options in msgspec.to_builtins(config).items():
        lines += ["", f"[{section}]"]
        for key, value in options.items():
            shown = _URL_PASSWORD.sub(r"\1\2***", value) if key == "url" else value
            lines.append(f"{key} = {_toml(shown)}")
    return "\n".join(lines[1:]) + "\n"


def parts(path: Path) -> list[Path]:
    """Return the files that are read after `path`: `conf.d/*.toml` beside it, then credentials.

    The credentials are the files `credentials/*.toml`, which only root can read. A service gets
    copies of them from systemd, in which case ``LoadCredential=llmd:`` gives each name a prefix.
    """
    credentials_dir = os.environ.get("CREDENTIALS_DIRECTORY")
    credentials = (
        Path(credentials_dir).glob("llmd_*.toml")
        if credentials_dir
        else path.parent.joinpath("credentials").glob("*.toml")
    )
    # A name that begins with a dot is an editor's lock file or an unfinished file.
    return [
        part
        for found in (path.parent.joinpath("conf.d").glob("*.toml"), credentials)
        for part in sorted(found)
        if not part.name.startswith(".")
    ]


def read_file(file: Path) -> dict[str, Any]:
    """Return the content of a TOML file. Raise ConfigError if it cannot be read."""
    try:
        # Editors on other systems write a byte order mark.
        return tomllib.loads(file.read_bytes().removeprefix(codecs.BOM_UTF8).decode())
    except FileNotFoundError:
        raise ConfigError(
            f"{file}: no such file: create it (an empty file takes every default, "
            "etc/llmd.toml is a commented example) or name another with --config"
        ) from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error


def _check_combinations(config: Config, sources: dict[tuple[str, str], Path], path: Path) -> None:
    """Raise ConfigError for options that are valid alone but not together."""
    engine = config.engine
    if engine.context // engine.parallel < _MIN_CONTEXT_PER_SEQUENCE:
        keys = [key for key in (("engine", "parallel"), ("engine", "context")) if key in sources]
        file = sources[keys[0]] if keys else path
        raise ConfigError(
            f"{file}: engine.context: {engine.context} tokens for engine.parallel = "
            f"{engine.parallel} sequences are fewer than {_MIN_CONTEXT_PER_SEQUENCE} each: "
            f"use at least {engine.parallel * _MIN_CONTEXT_PER_SEQUENCE}, or fewer sequences"
        )
    if engine.kv_type != "f16" and engine.flash_attention == "off":
        file = sources[_FLASH_ATTENTION]
        raise ConfigError(
            f'{file}: engine.flash_attention: "off" works only with kv_type = "f16": '
            f'use "auto", or remove kv_type = "{engine.kv_type}"'
        )


def _toml(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # JSON writes strings, numbers and booleans as TOML does, except for the character DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
