"""Create API keys."""

from __future__ import annotations

from llmd.auth import secret
from llmd.store.keys import Key, Keys, Role


class KeyIssuer:
    """Create keys and store their hashes. The text of a key is returned only once."""

    def __init__(self, keys: Keys, hasher: secret.Hasher) -> None:
        self._keys = keys
        self._hasher = hasher

    def issue(
        self, name: str, role: Role, *, expires_in_s: int | None, actor: str, now: int
    ) -> tuple[Key, str]:
        """Return the stored key and its text. Raise `InvalidField`, or `Busy` if Argon2 is busy."""
        made = secret.make()
        key = Key(
            id=made.id,
            name=name,
            role=role,
            hash=self._hasher.hash(made.text),
            created_at=now,
            expires_at=None if expires_in_s is None else now + expires_in_s,
        )
        return self._keys.add(key, actor=actor), made.text
