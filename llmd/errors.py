"""Every error that llmd raises on purpose.

LlmdError
├── ConfigError              a setting is wrong: file, key and what would be right
├── BadRequest               the caller can mend it
│   ├── MalformedBody        not the JSON we read
│   ├── BodyTooLarge         more bytes than ``[server] max_body_bytes``
│   ├── InvalidField         well-formed, but a field is unknown, mistyped or out of range
│   ├── PromptTooLong        more tokens than the context holds
│   └── ModelInvalid         a GGUF file that is broken, truncated or foreign
├── AuthError
│   ├── Unauthorized         no key, or not one that we know: always the same words
│   ├── Forbidden            a good key without the role
│   └── TooManyFailures      too many bad keys from there: wait
├── NotFound
│   ├── UnknownRoute
│   ├── UnknownModel
│   ├── UnknownProfile
│   ├── UnknownSession
│   ├── UnknownResponse
│   └── UnknownKey
├── Conflict                 right in itself, wrong in the present state
├── Unavailable              later, perhaps: carries ``retry_after_s``
│   ├── Busy                 streams and queue are full
│   ├── Draining             the daemon is going down
│   ├── EngineLoading        the model is being loaded
│   ├── EngineFailed         no model can be run at present
│   └── EngineDied           the worker died under this request
├── ClientGone               nobody waits for this answer any more
└── StoreError
    ├── StoreUnavailable     locked, read-only or unreachable
    ├── StoreFull            no space left on the device
    ├── SchemaError          the database cannot be used by this version
    └── ImportRefused        a file to import that cannot be read: file and field

No HTTP here: `llmd.api.errors` maps each class to a status.
"""

from __future__ import annotations

import re

# A name in them is the caller's, and may hold line ends.
_PLACE = re.compile(r" - at `\$\.?(.*?)`$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)


def printable(text: str) -> str:
    """Cut a name that somebody chose, and make it safe to show."""
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return shown if len(shown) <= 64 else shown[:64] + "…"


class LlmdError(Exception):
    """Carry a message for people, and the field it speaks of. Never raised itself."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class ConfigError(LlmdError):
    """A configuration that cannot be used."""


class BadRequest(LlmdError):
    """A request that the caller can mend. Never raised itself."""


class MalformedBody(BadRequest):
    """A body that is not the JSON we read."""


class BodyTooLarge(BadRequest):
    """A body of more bytes than we read."""


class InvalidField(BadRequest):
    """A field that is unknown, of the wrong type or out of range."""

    @classmethod
    def from_validation(cls, message: str) -> InvalidField:
        """Return what msgspec says of a value, with the field's name as `param`."""
        place = _PLACE.search(message)
        what = _PLACE.sub("", message)
        within = f"{printable(place[1])}." if place else ""
        if match := _UNKNOWN.fullmatch(what):
            name = within + printable(match[1])
            return cls(f"there is no field {name} here", param=name)
        if match := _MISSING.fullmatch(what):
            return cls(f"the field {within}{match[1]} is missing", param=within + match[1])
        if place is None:
            param = what.split(" ", 1)[0]
            return cls(what, param=param if what.isascii() and param.islower() else None)
        name = printable(place[1])
        what = what[:1].lower() + what[1:]
        return cls(what if what.startswith(name) else f"{name}: {what}", param=name)


class PromptTooLong(BadRequest):
    """A prompt of more tokens than the context holds, after every old turn was left out."""

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
    """A file that is not a whole GGUF model of a kind we load."""


class AuthError(LlmdError):
    """A key that does not open this door. Never raised itself."""


class Unauthorized(AuthError):
    """No key, or one that is not valid. The words never tell which of the two."""

    def __init__(self) -> None:
        super().__init__("a valid key is needed: send it as 'Authorization: Bearer KEY'")


class Forbidden(AuthError):
    """A valid key without the role that the route needs."""


class TooManyFailures(AuthError):
    """Too many wrong keys from one address, or for one key."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many wrong keys: wait {retry_after_s} seconds")
        self.retry_after_s = retry_after_s


class NotFound(LlmdError):
    """Something named by the caller is not there. Never raised itself."""


class UnknownRoute(NotFound):
    """No route has this path."""


class UnknownModel(NotFound):
    """No GGUF file has this name."""


class UnknownProfile(NotFound):
    """No profile has this name."""


class UnknownSession(NotFound):
    """The key has no session with this id."""


class UnknownResponse(NotFound):
    """The key has no response with this id."""


class UnknownKey(NotFound):
    """No key has this id."""


class Conflict(LlmdError):
    """Not possible in the present state."""


class Unavailable(LlmdError):
    """Not possible now; worth another try after `retry_after_s`. Never raised itself."""

    def __init__(self, message: str, *, retry_after_s: int = 2) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Busy(Unavailable):
    """Every stream and every place in the queue is taken."""


class Draining(Unavailable):
    """The daemon is going down and takes no new work."""


class EngineLoading(Unavailable):
    """The model is being loaded."""


class EngineFailed(Unavailable):
    """No model can be run: the reason is in the message."""


class EngineDied(Unavailable):
    """The worker process ended while it worked on this request."""


class ClientGone(LlmdError):
    """The client closed its connection before the answer began."""


class StoreError(LlmdError):
    """The database. Never raised itself."""


class StoreUnavailable(StoreError):
    """The database is locked, read-only or cannot be reached."""

    retry_after_s = 2


class StoreFull(StoreError):
    """There is no space left for the database."""


class SchemaError(StoreError):
    """The database has a schema that this version cannot use."""


class ImportRefused(StoreError):
    """A file to import that cannot be read as what it should be. Nothing was imported."""
