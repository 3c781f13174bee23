"""Every error that llmd raises on purpose.

LlmdError
├── ConfigError              a setting is wrong: the message names file, option and valid values
├── BadRequest               the caller can correct the request
│   ├── MalformedBody        the body cannot be read as JSON
│   ├── BodyTooLarge         the body has more bytes than ``[server] max_body_bytes``
│   ├── InvalidField         a field is unknown, missing, of the wrong type or out of range
│   ├── PromptTooLong        the prompt has more tokens than the context holds
│   └── ModelInvalid         a model file is not GGUF, is incomplete or is not supported
├── AuthError
│   ├── Unauthorized         the key is missing or not valid: the message is always the same
│   ├── Forbidden            the key is valid, but its role does not allow the request
│   └── TooManyFailures      too many wrong keys: the caller must wait
├── NotFound
│   ├── UnknownRoute
│   ├── UnknownModel
│   ├── UnknownProfile
│   ├── UnknownSession
│   ├── UnknownResponse
│   └── UnknownKey
├── Conflict                 the request is valid, but not in the present state
├── Unavailable              the request may succeed later: carries ``retry_after_s``
│   ├── Busy                 all streams are in use, and the queue is full
│   ├── Draining             the daemon is shutting down
│   ├── EngineLoading        the model is being loaded
│   ├── EngineFailed         no model can be run at present
│   └── EngineDied           the worker process ended during the request
├── ClientGone               the client disconnected before the answer began
└── StoreError
    ├── StoreUnavailable     the database is locked, read-only or unreachable
    ├── StoreFull            no space is left on the device
    ├── SchemaError          this version of llmd cannot use the database
    └── ImportRefused        a file cannot be imported: the message names file and field

This module knows nothing of HTTP: `llmd.api.errors` maps each class to a status, and the API
documentation shows the docstrings of the classes to users.
"""

from __future__ import annotations

import re

# These match messages of msgspec. DOTALL, because a field name from a client may hold line ends.
_PLACE = re.compile(r" - at `\$\.?(.*?)`$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)


def printable(text: str) -> str:
    """Return a name from a client, safe to show: at most 64 characters, all printable."""
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return shown if len(shown) <= 64 else shown[:64] + "…"


class LlmdError(Exception):
    """Base of all errors: a message, and the field that it is about. Never raised directly."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class ConfigError(LlmdError):
    """The configuration cannot be used."""


class BadRequest(LlmdError):
    """The caller can correct the request. Never raised directly."""


class MalformedBody(BadRequest):
    """The request body cannot be read as JSON."""


class BodyTooLarge(BadRequest):
    """The request body has more bytes than `[server] max_body_bytes` allows."""


class InvalidField(BadRequest):
    """A field is unknown, missing, of the wrong type or out of range."""

    @classmethod
    def from_validation(cls, message: str) -> InvalidField:
        """Return the error for a validation message of msgspec, with the field as `param`."""
        place = _PLACE.search(message)
        what = _PLACE.sub("", message)
        within = f"{printable(place[1])}." if place else ""
        if match := _UNKNOWN.fullmatch(what):
            name = within + printable(match[1])
            return cls(f"unknown field {name}", param=name)
        if match := _MISSING.fullmatch(what):
            return cls(f"the field {within}{match[1]} is missing", param=within + match[1])
        if place is None:
            param = what.split(" ", 1)[0]
            return cls(what, param=param if what.isascii() and param.islower() else None)
        name = printable(place[1])
        what = what[:1].lower() + what[1:]
        return cls(what if what.startswith(name) else f"{name}: {what}", param=name)


class PromptTooLong(BadRequest):
    """The prompt has more tokens than the context holds, even without earlier turns."""

    def __init__(
        self, num_prompt_tokens: int, num_context_tokens: int, *, is_exact: bool = True
    ) -> None:
        number = f"{num_prompt_tokens}" if is_exact else f"more than {num_prompt_tokens}"
        super().__init__(
            f"the prompt has {number} tokens, but the context holds "
            f"{num_context_tokens}: shorten the prompt",
            param="prompt",
        )
        self.num_prompt_tokens = num_prompt_tokens
        self.num_context_tokens = num_context_tokens


class ModelInvalid(BadRequest):
    """The file is not a complete GGUF model of a kind that llmd can load."""


class AuthError(LlmdError):
    """The key does not permit the request. Never raised directly."""


class Unauthorized(AuthError):
    """The key is missing or not valid. The message does not say which."""

    def __init__(self) -> None:
        super().__init__("a valid key is needed: send it as 'Authorization: Bearer KEY'")


class Forbidden(AuthError):
    """The key is valid, but does not have the role that the route needs."""


class TooManyFailures(AuthError):
    """Too many wrong keys came from one address, or were tried for one key id."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many wrong keys: wait {retry_after_s} seconds")
        self.retry_after_s = retry_after_s


class NotFound(LlmdError):
    """The request names something that does not exist. Never raised directly."""


class UnknownRoute(NotFound):
    """There is no route with this path."""


class UnknownModel(NotFound):
    """There is no model file with this name."""


class UnknownProfile(NotFound):
    """There is no profile with this name."""


class UnknownSession(NotFound):
    """The key has no session with this id."""


class UnknownResponse(NotFound):
    """The key has no response with this id."""


class UnknownKey(NotFound):
    """There is no key with this id."""


class Conflict(LlmdError):
    """The request is valid, but conflicts with the present state."""


class Unavailable(LlmdError):
    """The request may succeed after `retry_after_s` seconds. Never raised directly."""

    def __init__(self, message: str, *, retry_after_s: int = 2) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Busy(Unavailable):
    """All streams are in use and the queue is full, or too many keys are being checked."""


class Draining(Unavailable):
    """The daemon is shutting down and accepts no new requests."""


class EngineLoading(Unavailable):
    """The model is being loaded."""


class EngineFailed(Unavailable):
    """No model can be run at present. The message gives the reason."""


class EngineDied(Unavailable):
    """The worker process ended while it was computing the answer."""


class ClientGone(LlmdError):
    """The client closed its connection before the answer began."""


class StoreError(LlmdError):
    """The database could not do what was asked of it. Never raised directly."""


class StoreUnavailable(StoreError):
    """The database is locked, read-only or unreachable."""

    retry_after_s = 2


class StoreFull(StoreError):
    """No space is left on the device for a database or a model."""


class SchemaError(StoreError):
    """The database is damaged, or has a schema that this version of llmd cannot use."""


class ImportRefused(StoreError):
    """The file cannot be imported: it is not of the expected form. Nothing was imported."""
