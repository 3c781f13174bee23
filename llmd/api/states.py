"""``/states``: the conversations of which the engine keeps a KV state."""

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
    """The KV state of a conversation. A name with `~` is of one that the client stores itself."""

    key_id: str
    session: str
    place: Annotated[
        Literal["slot", "memory", "disk"],
        Meta(description="`slot`: can continue at once; the others are loaded first."),
    ]
    tokens: int


class StateList(Struct, frozen=True, kw_only=True):
    """All KV states, those that can continue soonest first."""

    states: list[StateView]


STATES = {
    "GET": Operation(
        summary="List the conversations whose KV state is kept, and where it is",
        access=Access.ADMIN,
        reply=StateList,
        errors=(EngineLoading, EngineFailed, EngineDied),
    ),
}


class StatesResource:
    """The KV states of the conversations of all keys."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the KV states."""
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
