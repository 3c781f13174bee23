"""Write the body of an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import falcon
import msgspec

Item = TypeVar("Item")
Cursor = TypeVar("Cursor")


def send(resp: falcon.Response, value: object) -> None:
    """Send a value as JSON."""
    resp.content_type = falcon.MEDIA_JSON
    resp.data = msgspec.json.encode(value)


def next_after(
    items: Sequence[Item], limit: int, cursor_of: Callable[[Item], Cursor]
) -> Cursor | None:
    """Return the `after` of the page that follows `items`, or None on the last page."""
    return cursor_of(items[-1]) if len(items) == limit else None
