"""``/models``: which GGUF files there are, and which of them serves."""

from __future__ import annotations

import falcon
from msgspec import Struct

from llmd.api import body
from llmd.api.access import caller_of
from llmd.api.reply import send
from llmd.chat.selection import Selector
from llmd.errors import InvalidField
from llmd.models.library import Library


class SelectBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file name, and a profile's name, which the seed called the configuration of a model."""

    model: str | None = None
    model_config: str | None = None


class ModelsResource:
    """All models."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them in one body that the seed's clients and OpenAI's can both read."""
        files = self._library.list()
        data = [
            {
                "id": file.name,
                "object": "model",
                "created": file.modified_at,
                "owned_by": "llmd",
            }
            for file in files
        ]
        send(resp, {"models": [file.name for file in files], "object": "list", "data": data})


class ModelResource:
    """The model that serves."""

    def __init__(self, selector: Selector) -> None:
        self._selector = selector

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Load a model and select a profile; answer once it serves."""
        wanted = body.read(req, SelectBody)
        if wanted.model is None and wanted.model_config is None:
            raise InvalidField("name a model, a model_config (profile) or both", param="model")
        selection = self._selector.select(
            wanted.model, wanted.model_config, actor=caller_of(req).id
        )
        send(resp, {"model_status": True, "model": selection.model, "profile": selection.profile})
