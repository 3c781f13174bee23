"""The key and the session that a KV state belongs to."""

from __future__ import annotations

from typing import NamedTuple


class Conversation(NamedTuple):
    """The owner of a KV state (a key's id) and its session, empty for requests without one."""

    owner: str
    session: str

    def belongs_to(self, owner: str, session: str | None) -> bool:
        """Return whether this is the owner's `session`, or any of the owner's if that is None."""
        return self.owner == owner and session in (None, self.session)


NO_CONVERSATION = Conversation("", "")
"""The conversation of an empty slot."""
