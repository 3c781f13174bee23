"""``/v1/models``: the names that a request may give as its model."""

from __future__ import annotations

from typing import Literal

import falcon
from msgspec import Struct

from llmd.api.access import Access
from llmd.api.reply import send
from llmd.api.route import Operation
from llmd.chat.model_names import ModelName, ModelNames
from llmd.errors import UnknownModel


class ModelObject(Struct, frozen=True, kw_only=True):
    """A name for a model: a profile, or a GGUF file."""

    id: str
    created: int
    object: Literal["model"] = "model"
    owned_by: str = "llmd"


class ModelList(Struct, frozen=True, kw_only=True):
    """A list of all models."""

    data: list[ModelObject]
    object: Literal["list"] = "list"


MODEL_LIST = {
    "GET": Operation(
        summary="List the models that a request can name: profiles and GGUF files",
        access=Access.USER,
        reply=ModelList,
    )
}
MODEL_OBJECT = {
    "GET": Operation(
        summary="Show a model",
        access=Access.USER,
        reply=ModelObject,
        errors=(UnknownModel,),
    )
}


class ModelListResource:
    """The resource that lists all models."""

    is_openai = True

    def __init__(self, models: ModelNames) -> None:
        self._models = models

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Send the list."""
        send(resp, ModelList(data=[view(model) for model in self._models.list()]))


class ModelObjectResource:
    """The resource that shows one model."""

    is_openai = True

    def __init__(self, models: ModelNames) -> None:
        self._models = models

    def on_get(self, req: falcon.Request, resp: falcon.Response, model_id: str) -> None:
        """Send the model."""
        send(resp, view(self._models.get(model_id)))


def view(model: ModelName) -> ModelObject:
    """Return a model as the object that OpenAI's clients read."""
    return ModelObject(id=model.id, created=model.created_at)
