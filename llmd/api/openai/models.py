"""``/v1/models``: the names that can be asked for, profiles and files."""

from __future__ import annotations

from typing import Literal

import falcon
from msgspec import Struct

from llmd.api.access import Access
from llmd.api.reply import send
from llmd.api.route import Operation
from llmd.chat.model_names import ModelId, ModelIds
from llmd.errors import UnknownModel


class ModelObject(Struct, frozen=True, kw_only=True):
    """A model: a profile, or a GGUF file."""

    id: str
    created: int
    object: Literal["model"] = "model"
    owned_by: str = "llmd"


class ModelList(Struct, frozen=True, kw_only=True):
    """All models."""

    data: list[ModelObject]
    object: Literal["list"] = "list"


MODEL_LIST = {
    "GET": Operation(
        summary="List what can be named as a model: profiles and GGUF files",
        access=Access.USER,
        reply=ModelList,
    )
}
MODEL_OBJECT = {
    "GET": Operation(
        summary="Show one of them",
        access=Access.USER,
        reply=ModelObject,
        errors=(UnknownModel,),
    )
}


class ModelListResource:
    """All models."""

    is_openai = True

    def __init__(self, models: ModelIds) -> None:
        self._models = models

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them."""
        send(resp, ModelList(data=[view(model) for model in self._models.list()]))


class ModelObjectResource:
    """One model."""

    is_openai = True

    def __init__(self, models: ModelIds) -> None:
        self._models = models

    def on_get(self, req: falcon.Request, resp: falcon.Response, model_id: str) -> None:
        """Show it."""
        send(resp, view(self._models.get(model_id)))


def view(model: ModelId) -> ModelObject:
    """Return a model as OpenAI's clients read it."""
    return ModelObject(id=model.id, created=model.created_at)
