"""The settings of the daemon: what they are called, what they may be, how files give them.

Each section is a frozen struct and goes to the constructors that need it; nothing reads a global.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field, inspect

from llmd.errors import ConfigError

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")
_URL_PASSWORD = re.compile(r"(://[^:/@]*:).*(?=@)|([?&]password=)[^&]*")

_Path = Annotated[str, Meta(pattern="^/[^\0]*$", description="an absolute path")]
_OptionalPath = Annotated[
    str, Meta(pattern="^(/[^\0]*)?$", description='an absolute path, or "" for the default')
]
_FileName = Annotated[
    str, Meta(pattern="^[^/\0]*$", description='a file name without folder, or "" for the default')
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
    """Hold the options of one table of the file."""


class Server(_Section, frozen=True, kw_only=True):
    """Say where to listen and how much to accept."""

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
    """Say where keys, profiles and sessions are kept."""

    url: _Url = "sqlite:////var/lib/llmd/llmd.db"


class Models(_Section, frozen=True, kw_only=True):
    """Say where the GGUF files are, and which of them serves when no profile names one."""

    dir: _Path = "/var/lib/llmd/models"
    default: _FileName = ""


class Engine(_Section, frozen=True, kw_only=True):
    """Set the size and the threads of the worker that runs the model."""

    library_dir: _OptionalPath = ""
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    threads_batch: Annotated[int, Meta(ge=0, le=1024)] = 0
    context: Annotated[int, Meta(ge=256, le=16_777_216)] = 32_768
    parallel: Annotated[int, Meta(ge=1, le=256)] = 8
    batch: Annotated[int, Meta(ge=16, le=4096)] = 256
    kv_type: Literal["f16", "q8_0"] = "f16"
    load_timeout_s: Annotated[float, Meta(ge=1, le=86_400)] = 600.0
    stall_s: Annotated[float, Meta(ge=1, le=3600)] = 30.0


class Cache(_Section, frozen=True, kw_only=True):
    """Bound the KV states that are kept for idle sessions."""

    ram_bytes: Annotated[int, Meta(ge=0, le=2**50)] = 536_870_912


class Auth(_Section, frozen=True, kw_only=True):
    """Set the price of a key check and the limits for those who guess."""

    argon2: Literal["default", "small", "cheapest"] = "default"
    max_failures_per_address: Annotated[int, Meta(ge=1, le=10_000)] = 10
    max_failures_per_key: Annotated[int, Meta(ge=1, le=10_000)] = 5
    cache_ttl_s: Annotated[int, Meta(ge=1, le=86_400)] = 600


class Log(_Section, frozen=True, kw_only=True):
    """Say what is logged, and in which form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "journal", "text", "json"] = "auto"
    prompts: bool = False


class Config(_Section, frozen=True, kw_only=True):
    """Hold one struct a section; every option has a default."""

    server: Server = field(default_factory=Server)
    store: Store = field(default_factory=Store)
    models: Models = field(default_factory=Models)
    engine: Engine = field(default_factory=Engine)
    cache: Cache = field(default_factory=Cache)
    auth: Auth = field(default_factory=Auth)
    log: Log = field(default_factory=Log)


class Address(Struct, frozen=True, kw_only=True):
    """Name a socket to listen on. `host` has no brackets; port 0 lets the system choose."""

    host: str
    port: int


_SECTIONS: dict[str, type[_Section]] = {f.name: f.type for f in msgspec.structs.fields(Config)}

_MIN_CONTEXT_PER_SEQUENCE = 128


def load(path: Path) -> Config:
    """Read `path`, then each `conf.d/*.toml` beside it in sorted order, and check the whole.

    Tables merge; a scalar or list of a later file replaces the earlier one.
    Raises ConfigError with a line for each wrong option: file, option, and what it may be.
    """
    values: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
    sources: dict[tuple[str, str], Path] = {}
    wrong: list[str] = []
    for file in [path, *parts(path)]:
        for section, table in read_file(file).items():
            if section not in _SECTIONS:
                wrong.append(f"{file}: [{section}]: {_unknown('section', section, _SECTIONS)}")
            elif not isinstance(table, dict):
                wrong.append(f"{file}: {section}: not a table: write [{section}] above its options")
            else:
                values[section] |= table
                sources |= {(section, key): file for key in table}
    for (section, key), file in sources.items():
        problem = _problem(_SECTIONS[section], key, values[section][key])
        if problem:
            wrong.append(f"{file}: {section}.{key}: {problem}")
    if wrong:
        raise ConfigError("\n".join(wrong))
    config = msgspec.convert(values, Config)
    _check_together(config, sources, path)
    return config


def to_toml(config: Config) -> str:
    """Return `config` as a TOML file, every option written out.

    A password in `store.url` is shown as `***`.
    """
    lines: list[str] = []
    for section, options in msgspec.to_builtins(config).items():
        lines += ["", f"[{section}]"]
        for key, value in options.items():
            shown = _URL_PASSWORD.sub(r"\1\2***", value) if key == "url" else value
            lines.append(f"{key} = {_toml(shown)}")
    return "\n".join(lines[1:]) + "\n"


def parse_address(text: str) -> Address:
    """Read `host:port` or `[v6]:port`. Raises ConfigError when it is neither."""
    host, colon, port = text.rpartition(":")
    number = int(port) if re.fullmatch("[0-9]{1,5}", port) else -1
    if colon and 0 <= number <= 65535:
        if host.startswith("[") and host.endswith("]"):
            try:
                return Address(host=str(ipaddress.IPv6Address(host[1:-1])), port=number)
            except ValueError:
                pass
        elif _HOST.fullmatch(host):
            return Address(host=host, port=number)
    raise ConfigError(f'{text!r} is not "host:port" or "[v6]:port" with a port from 0 to 65535')


def parts(path: Path) -> list[Path]:
    """Return the files that are read after `path`, in their order."""
    # A name that begins with a dot is an editor's lock or a half-written file.
    found = path.parent.joinpath("conf.d").glob("*.toml")
    return sorted(part for part in found if not part.name.startswith("."))


def read_file(file: Path) -> dict[str, Any]:
    """Return what a TOML file says. Raises ConfigError when it cannot be read."""
    try:
        return tomllib.loads(file.read_bytes().decode())
    except FileNotFoundError:
        raise ConfigError(
            f"{file}: no such file: make one (an empty file takes every default, "
            "etc/llmd.toml is the commented example) or name another with --config"
        ) from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error


def _unknown(noun: str, name: str, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"unknown {noun}: did you mean {near[0]}?"
    return f"unknown {noun}: use one of {', '.join(known)}"


def _problem(section: type[_Section], key: str, value: object) -> str | None:
    """Say what is wrong with the value of an option, or return None."""
    fields = {f.name: f.type for f in msgspec.structs.fields(section)}
    if key not in fields:
        return _unknown("option", key, fields)
    try:
        msgspec.convert(value, fields[key])
        if key == "listen":
            for text in value:  # type: ignore[attr-defined]  # convert has seen a list of str
                parse_address(text)
    except msgspec.ValidationError:
        return f"{_shown(value)}must be {_allowed(inspect.type_info(fields[key]))}"
    except ConfigError as error:
        return error.message
    if isinstance(value, float) and math.isnan(value):
        return f"must be {_allowed(inspect.type_info(fields[key]))}, not nan"
    return None


def _shown(value: object) -> str:
    # Text stays out of the message: a database URL may hold a password.
    return f"{value} is wrong: " if isinstance(value, int | float) else ""


def _allowed(info: inspect.Type) -> str:
    """Say in words what `info` lets in."""
    match info:
        case inspect.Metadata(extra_json_schema={"description": str(words)}):
            return words
        case inspect.VarTupleType(item_type=inspect.Metadata() as item):
            return _allowed(item)
        case inspect.VarTupleType():
            return 'a list of at least one "host:port"'
        case inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case inspect.FloatType(ge=low, le=high):
            return f"a number from {low} to {high}"
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(f'"{value}"' for value in values)
        case inspect.BoolType():
            return "true or false"
    raise AssertionError(f"an option has a type without words: {info}")


def _check_together(config: Config, sources: dict[tuple[str, str], Path], path: Path) -> None:
    """Raise ConfigError when options that are right alone do not fit each other."""
    engine = config.engine
    if engine.context // engine.parallel < _MIN_CONTEXT_PER_SEQUENCE:
        keys = [key for key in (("engine", "parallel"), ("engine", "context")) if key in sources]
        file = sources[keys[0]] if keys else path
        raise ConfigError(
            f"{file}: engine.context: {engine.context} tokens for engine.parallel = "
            f"{engine.parallel} sequences leave less than {_MIN_CONTEXT_PER_SEQUENCE} each: "
            f"give at least {engine.parallel * _MIN_CONTEXT_PER_SEQUENCE}, or fewer sequences"
        )


def _toml(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # JSON writes strings, numbers and booleans as TOML does, except for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
