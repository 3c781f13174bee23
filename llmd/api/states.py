"""``/states``: of which conversations the model has something ready."""

from __future__ import annotations

from typing import Annotated, Literal

import falcon
from msgspec import Meta, Struct

from llmd.api.access import Access, is_gone
from llmd.api.reply import send
from llmd.api.route import Operation
from llmd.chat.queries import Queries
from llmd.errors import EngineDied, EngineFailed, EngineLoading


class StateView(Struct, frozen=True, kw_only=True):
    """What is computed of a conversation. A name with `~` is one that the client keeps itself."""

    key_id: str
    session: str
    place: Annotated[
        Literal["slot", "memory", "disk"],
        Meta(description="`slot`: goes on at once; the others are read back first."),
    ]
    tokens: int


class StateList(Struct, frozen=True, kw_only=True):
    """All that is warm, the quickest to go on from first."""

    states: list[StateView]


STATES = {
    "GET": Operation(
        summary="List of which conversations the model has something ready, and where",
        access=Access.ADMIN,
        reply=StateList,
        errors=(EngineLoading, EngineFailed, EngineDied),
    ),
}


class StatesResource:
    """What is warm, of all keys."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List it."""
        kept = self._queries.kept(lambda: is_gone(req))
        states = [
            StateView(
                key_id=state.owner,
                session=state.session,
                place=state.place,
                tokens=state.num_tokens,
            )
            for state in kept
        ]
        send(resp, StateList(states=states))
