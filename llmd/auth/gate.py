"""Check the key of a request, in steps ordered by their cost.

1. form and CRC                        needs neither the store nor memory
2. verified recently                   the row is still read, so a revoked key is refused at once
3. refused recently                    needs no access to the store
4. failures of this address            answered with 429
5. the row, by id or by digest         an unknown id costs no Argon2: ids have 60 random bits
6. failures of this key                answered with 429
7. Argon2, one at a time

A key in use passes step 2 and never reaches steps 3 to 7. A flood of wrong keys therefore cannot
keep callers out whose keys were verified before.

A request that runs for longer than an instant checks its key again and again (`Gate.recheck`), so
that it ends with its key.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections.abc import Callable
from typing import NoReturn, Protocol

from msgspec import Struct

from llmd.auth.limits import Failures, network
from llmd.auth.secret import Hasher, ParsedKey, digest, parse
from llmd.auth.ttl_cache import TtlCache
from llmd.config import Auth
from llmd.errors import AuthError, Busy, StoreError, TooManyFailures, Unauthorized

log = logging.getLogger(__name__)

_MAX_VERIFIED = 1024
_MAX_REFUSED = 4096
_REFUSED_TTL_S = 60.0
_TOUCH_INTERVAL_S = 60.0

RECHECK_INTERVAL_S = 0.25
"""How long the validity of a key that is in use is known before its row is read again.

Requests must end within a second of their key. They ask every 0.1 s.
"""


class KeyEnded(Unauthorized):
    """The key was revoked or expired while the request waited or its answer was generated."""

    def __init__(self) -> None:
        AuthError.__init__(self, "the key was revoked or has expired: the request ends here")


class StoredKey(Protocol):
    """A row of the key store. Times are unix seconds."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def role(self) -> str: ...  # noqa: D102
    @property
    def hash(self) -> str: ...  # noqa: D102
    @property
    def expires_at(self) -> int | None: ...  # noqa: D102
    @property
    def revoked_at(self) -> int | None: ...  # noqa: D102


class KeyStore(Protocol):
    """The store of the keys. Each method raises StoreError if the store fails."""

    def by_id(self, key_id: str, /) -> StoredKey | None:
        """Return the key with this id, or None."""

    def by_digest(self, key_digest: str, /) -> StoredKey | None:
        """Return the seed key with this SHA-256, or None."""

    def touch(self, key_id: str, now: int, /) -> None:
        """Record that the key was used at `now`."""

    def rehash(self, key_id: str, hashed: str, /) -> None:
        """Replace the hash of the key."""


class Caller(Struct, frozen=True, kw_only=True):
    """The key with which a request was authorised."""

    id: str
    name: str
    role: str


class _Verified(Struct, frozen=True, kw_only=True):
    key_id: str
    hash: str


class Gate:
    """Checks keys and returns their callers. Thread-safe.

    It remembers a key only by a tag: its HMAC under a secret of this process.
    """

    def __init__(
        self,
        keys: KeyStore,
        hasher: Hasher,
        *,
        settings: Auth,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._hasher = hasher
        self._now = now
        self._tag_secret = secrets.token_bytes(32)
        self._verified: TtlCache[bytes, _Verified] = TtlCache(
            _MAX_VERIFIED, settings.cache_ttl_s, clock
        )
        # Separate from the verified keys: a flood of wrong keys must not evict those.
        self._refused: TtlCache[bytes, bool] = TtlCache(_MAX_REFUSED, _REFUSED_TTL_S, clock)
        self._touched: TtlCache[str, bool] = TtlCache(_MAX_VERIFIED, _TOUCH_INTERVAL_S, clock)
        self._rechecked: TtlCache[str, bool] = TtlCache(_MAX_VERIFIED, RECHECK_INTERVAL_S, clock)
        self._by_address = Failures(settings.max_failures_per_address, clock=clock)
        self._by_key = Failures(settings.max_failures_per_key, clock=clock)

    def check(self, presented: str | None, address: str) -> Caller:
        """Return the caller whose key was `presented` from `address`.

        Raise Unauthorized for a wrong key, always with the same message, TooManyFailures before
        any costly check, Busy if other keys occupy Argon2, and StoreError if the keys cannot be
        read.
        """
        key = parse(presented) if presented is not None else None
        if key is None:
            raise Unauthorized
        tag = hmac.digest(self._tag_secret, key.text.encode(), "sha256")
        row = self._find_verified(tag)
        if row is None:
            if self._refused.get(tag):
                raise Unauthorized
            row = self._verify(tag, key, network(address))
        self._touch(row.id)
        return Caller(id=row.id, name=row.name, role=row.role)

    def recheck(self, key_id: str) -> None:
        """Raise `KeyEnded` if the key of a running request has been revoked or has expired.

        However many requests a key has, its row is read once in `RECHECK_INTERVAL_S`, by one
        thread, and the others do not wait for it. Do nothing if the keys cannot be read.
        """
        is_live = self._rechecked.get(key_id)
        if is_live is None:
            self._rechecked.put(key_id, True)
            try:
                row = self._keys.by_id(key_id)
            except StoreError as error:
                log.debug("cannot check again whether key %s is valid: %s", key_id, error)
                return
            is_live = row is not None and self._is_live(row)
            self._rechecked.put(key_id, is_live)
        if not is_live:
            raise KeyEnded

    def _find_verified(self, tag: bytes) -> StoredKey | None:
        """Return the row of a key verified recently, or None if it has to be verified."""
        verified = self._verified.get(tag)
        if verified is None:
            return None
        row = self._keys.by_id(verified.key_id)
        if row is None or not self._is_live(row):
            raise Unauthorized
        if not hmac.compare_digest(row.hash, verified.hash):
            # The row was given another secret, or its secret was hashed anew.
            self._verified.remove(tag)
            return None
        # The time to live counts from the last use, so wrong keys never delay a key in use.
        self._verified.put(tag, verified)
        return row

    def _verify(self, tag: bytes, key: ParsedKey, source: str) -> StoredKey:
        """Verify a key and return its row, or refuse it."""
        self._require_allowed(self._by_address, source)
        row = self._keys.by_digest(digest(key.text)) if key.id is None else self._keys.by_id(key.id)
        if row is None or not self._is_live(row):
            self._refuse(tag, source)
        self._require_allowed(self._by_key, row.id)
        with self._hasher.exclusive():
            # Another request may have verified or refused the same key during the wait.
            if (known := self._find_verified(tag)) is not None:
                return known
            if self._refused.get(tag):
                raise Unauthorized
            self._require_allowed(self._by_address, source)
            self._require_allowed(self._by_key, row.id)
            if not self._hasher.verify(row.hash, key.text):
                if self._by_key.add(row.id):
                    log.warning("key %s must wait: too many wrong secrets", row.id)
                self._refuse(tag, source)
            hashed = self._rehash(row, key.text)
            self._verified.put(tag, _Verified(key_id=row.id, hash=hashed))
        return row

    def _is_live(self, row: StoredKey) -> bool:
        expired = row.expires_at is not None and self._now() >= row.expires_at
        return row.revoked_at is None and not expired

    def _require_allowed(self, failures: Failures, name: str) -> None:
        if wait_s := failures.wait_s(name):
            raise TooManyFailures(wait_s)

    def _refuse(self, tag: bytes, source: str) -> NoReturn:
        self._refused.put(tag, True)
        if self._by_address.add(source):
            log.warning("%s must wait: too many wrong keys", source)
        raise Unauthorized

    def _rehash(self, row: StoredKey, text: str) -> str:
        """Return the hash of a verified key, renewed if the parameters have changed."""
        if not self._hasher.needs_rehash(row.hash):
            return row.hash
        try:
            hashed = self._hasher.hash(text)
            self._keys.rehash(row.id, hashed)
        except (StoreError, Busy) as error:
            # The old hash has just been verified, so a read-only disk must not refuse the key.
            log.warning("cannot renew the hash of key %s: %s", row.id, error)
            return row.hash
        return hashed

    def _touch(self, key_id: str) -> None:
        if self._touched.get(key_id):
            return
        self._touched.put(key_id, True)
        try:
            self._keys.touch(key_id, int(self._now()))
        except StoreError as error:
            log.warning("cannot record the use of key %s: %s", key_id, error)
