"""A gate with fake keys, and with a hasher and a clock that a test controls."""

from __future__ import annotations

import random
import threading

import msgspec
import pytest

from llmd.auth.gate import Gate
from llmd.auth.secret import Hasher, make
from llmd.config import Auth
from llmd.errors import StoreUnavailable, TooManyFailures, Unauthorized

ADDRESS = "192.0.2.1"


class FakeRow(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    hash: str
    name: str = "alice"
    role: str = "user"
    expires_at: int | None = None
    revoked_at: int | None = None


class FakeKeys:
    """A key store in memory that records each call."""

    def __init__(self) -> None:
        self.rows: dict[str, FakeRow] = {}
        self.digests: dict[str, str] = {}
        self.calls: list[str] = []
        self.is_read_only = False
        # If set, each thread waits here for the others when it asks for its first row.
        self.barrier: threading.Barrier | None = None
        self.waited: set[int] = set()

    def by_id(self, key_id: str, /) -> FakeRow | None:
        self.calls.append("by_id")
        if self.barrier is not None and threading.get_ident() not in self.waited:
            self.waited.add(threading.get_ident())
            self.barrier.wait()
        return self.rows.get(key_id)

    def by_digest(self, key_digest: str, /) -> FakeRow | None:
        self.calls.append("by_digest")
        return self.rows.get(self.digests.get(key_digest, ""))

    def touch(self, key_id: str, now: int, /) -> None:
        self.calls.append(f"touch {key_id} {now}")
        self._write()

    def rehash(self, key_id: str, hashed: str, /) -> None:
        self.calls.append("rehash")
        self._write()
        self.change(key_id, hash=hashed)

    def change(self, key_id: str, **changes: object) -> None:
        self.rows[key_id] = msgspec.structs.replace(self.rows[key_id], **changes)

    def _write(self) -> None:
        if self.is_read_only:
            message = "attempt to write a readonly database"
            raise StoreUnavailable(message)


class CountingHasher(Hasher):
    """A hasher that counts its verifications."""

    num_verified = 0

    def verify(self, hashed: str, text: str) -> bool:
        self.num_verified += 1
        return super().verify(hashed, text)


class GateHarness:
    """A gate with its key store, hasher and clock."""

    def __init__(self, parameters: str = "cheapest") -> None:
        self.keys = FakeKeys()
        self.hasher = CountingHasher(parameters)
        self.time_s = 1000.0
        self.gate = Gate(
            self.keys,
            self.hasher,
            settings=Auth(cache_ttl_s=600),
            clock=lambda: self.time_s,
            now=lambda: 1_800_000_000 + self.time_s,
        )

    def add(self, **changes: object) -> tuple[str, str]:
        """Store a new key with these fields in its row. Return its id and text."""
        key = make()
        self.keys.rows[key.id] = FakeRow(id=key.id, hash=Hasher("cheapest").hash(key.text))
        self.keys.change(key.id, **changes)
        return key.id, key.text

    def guess(self, key_id: str) -> str:
        """Return a key with this id, of the right form but with a wrong secret."""
        return make(FixedIdRandom(key_id)).text

    def refused(self, presented: str | None, address: str = ADDRESS) -> type[Exception]:
        """Return the class of the error with which the gate refuses a key."""
        with pytest.raises((Unauthorized, TooManyFailures)) as caught:
            self.gate.check(presented, address)
        return type(caught.value)


class FixedIdRandom:
    """A random source that yields the characters of an id first."""

    def __init__(self, key_id: str) -> None:
        self.letters = iter(key_id)

    def choice(self, seq: str, /) -> str:
        return next(self.letters, None) or random.choice(seq)
