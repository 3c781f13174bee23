"""Make keys, recognise them, and make and verify their hashes.

A key has the form `llmd_<id: 12 [0-9a-z]>_<secret: 43 [0-9A-Za-z]><crc: 6 [0-9A-Za-z]>`. The id is
public and names the key. The secret has 256 random bits. The CRC-32 of all characters before it
exposes typing errors and junk without access to the store. The fixed form lets secret scanners
find keys.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

from argon2 import Parameters, PasswordHasher, Type, profiles
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from msgspec import Struct

from llmd.errors import Busy

log = logging.getLogger(__name__)

# Without i, l, o and u an id can be read aloud without mistakes. 32 characters are 5 bits each.
_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_MAX_CHARS = 128
_LLMD_KEY = re.compile("llmd_([0-9a-z]{12})_[0-9A-Za-z]{43}([0-9A-Za-z]{6})")
_SEED_KEY = re.compile("[0-9A-Za-z]{20}")

_PARAMETERS = {
    # RFC 9106, section 4, second choice: 64 MiB, 3 passes, 4 lanes.
    "large": profiles.RFC_9106_LOW_MEMORY,
    # OWASP Password Storage Cheat Sheet: one lane, for machines whose cores are busy generating.
    "small": Parameters(
        type=Type.ID,
        version=19,
        salt_len=16,
        hash_len=32,
        time_cost=2,
        memory_cost=19_456,
        parallelism=1,
    ),
    # Protects nothing; only for tests.
    "cheapest": profiles.CHEAPEST,
}


class NewKey(Struct, frozen=True, kw_only=True):
    """A new key. `text` is shown once and never stored."""

    id: str
    text: str

    def __repr__(self) -> str:
        """Leave the secret out of tracebacks and logs."""
        return f"NewKey(id={self.id!r})"


class ParsedKey(Struct, frozen=True, kw_only=True):
    """Text that has the form of a key. A seed key contains no id, so its `id` is None."""

    kind: Literal["llmd", "seed"]
    id: str | None
    text: str

    def __repr__(self) -> str:
        """Leave the secret out of tracebacks and logs."""
        return f"ParsedKey(kind={self.kind!r}, id={self.id!r})"


class Rand(Protocol):
    """A source of random characters: the module `secrets`, or a repeatable one in tests."""

    def choice(self, seq: str, /) -> str:
        """Return one character of `seq`, each with the same probability."""


def new_id(rand: Rand = secrets) -> str:
    """Return a new id of 60 random bits."""
    return "".join(rand.choice(_ID_ALPHABET) for _ in range(12))


def make(rand: Rand = secrets) -> NewKey:
    """Make a key with a new id and a secret of 256 random bits."""
    key_id = new_id(rand)
    body = f"llmd_{key_id}_" + "".join(rand.choice(_BASE62) for _ in range(43))
    return NewKey(id=key_id, text=body + _crc(body))


def parse(text: str) -> ParsedKey | None:
    """Return `text` as a key if its form and CRC are right, or None."""
    if len(text) > _MAX_CHARS or not text.isascii():
        return None
    if match := _LLMD_KEY.fullmatch(text):
        if hmac.compare_digest(_crc(text[:-6]), match[2]):
            return ParsedKey(kind="llmd", id=match[1], text=text)
        return None
    if _SEED_KEY.fullmatch(text):
        return ParsedKey(kind="seed", id=None, text=text)
    return None


def digest(text: str) -> str:
    """Return the SHA-256 of a key in hex, by which a seed key is found."""
    return hashlib.sha256(text.encode()).hexdigest()


def _crc(body: str) -> str:
    number = zlib.crc32(body.encode("ascii"))
    letters = ""
    for _ in range(6):
        number, index = divmod(number, 62)
        letters = _BASE62[index] + letters
    return letters


class Hasher:
    """Hashes and verifies keys with Argon2id, one at a time. Thread-safe.

    It is a class because it holds a lock: each hash takes up to 64 MiB and four cores, and a flood
    of keys must not take that several times over.
    """

    def __init__(self, parameters: str, *, wait_s: float = 2.0) -> None:
        self._hasher = PasswordHasher.from_parameters(_PARAMETERS[parameters])
        self._lock = threading.RLock()
        self._wait_s = wait_s

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other threads from hashing; `hash` and `verify` may be called within.

        Raise Busy if other threads hold the lock for longer than `wait_s`.
        """
        if not self._lock.acquire(timeout=self._wait_s):
            raise Busy("too many new keys are being checked: try again", retry_after_s=1)
        try:
            yield
        finally:
            self._lock.release()

    def hash(self, text: str) -> str:
        """Return the hash of a key, with a new salt. Raise Busy as `exclusive` does."""
        with self.exclusive():
            return self._hasher.hash(text)

    def verify(self, hashed: str, text: str) -> bool:
        """Return whether `hashed` is a hash of `text`. Raise Busy if it cannot be computed."""
        with self.exclusive():
            try:
                return self._hasher.verify(hashed, text)
            except VerifyMismatchError:
                return False
            except InvalidHashError:
                log.error("a stored key hash is not an Argon2 hash: its key is refused")
                return False
            except VerificationError as error:
                # Most likely there was not enough memory, which says nothing about the key.
                raise Busy(f"the key cannot be checked now: {error}") from error

    def needs_rehash(self, hashed: str) -> bool:
        """Return whether `hashed` was made with other parameters than the present ones."""
        return self._hasher.check_needs_rehash(hashed)
