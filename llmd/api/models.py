"""``/models``: the GGUF files, and the model that serves."""

from __future__ import annotations

from typing import Annotated, Literal

import falcon
from msgspec import Meta, Struct

from llmd.api import body
from llmd.api.access import Access, caller_of
from llmd.api.openai.models import ModelObject, view
from llmd.api.reply import send
from llmd.api.route import Operation
from llmd.chat import model_names
from llmd.chat.model_selection import ModelSelector
from llmd.errors import (
    ConfigError,
    Conflict,
    EngineFailed,
    InvalidField,
    ModelInvalid,
    StoreFull,
    UnknownModel,
    UnknownProfile,
)
from llmd.models.library import Library


class ModelNames(Struct, frozen=True, kw_only=True):
    """The files' names for the seed's clients. `data` is for OpenAI's, and has the profiles too."""

    models: list[str]
    kinds: Annotated[
        dict[str, str | None],
        Meta(
            description=(
                "The kind of each file, as its header tells: `decoder` generates text, `decoder`, "
                "`encoder` and `diffusion` make embeddings. Others are of no use: "
                "`encoder-decoder`, `reranker`, `speech`, `draft`, `projector`, `adapter`. Null if "
                "the file is not a valid model."
            )
        ),
    ]
    object: Literal["list"] = "list"
    data: list[ModelObject]


class SelectBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The names of a file and of a profile, which the seed called the configuration of a model."""

    model: Annotated[
        str | None, Meta(description="A GGUF file. Default: the profile's, or the present one.")
    ] = None
    model_config: Annotated[
        str | None, Meta(description="A profile. Default: the present one.", examples=["default"])
    ] = None


class Selected(Struct, frozen=True, kw_only=True):
    """The model and the profile that serve now."""

    model_status: Literal[True] = True
    model: str | None
    profile: str


MODELS = {
    "GET": Operation(
        summary="List the GGUF files, and all names that a request may use as its model",
        access=Access.USER,
        reply=ModelNames,
        errors=(ConfigError,),
    ),
}
MODEL = {
    "POST": Operation(
        summary="Load a model and select a profile",
        description=(
            "Either alone is enough. The answer comes once the model serves. On an error the "
            "model and the profile from before stay in use."
        ),
        access=Access.ADMIN,
        body=SelectBody,
        reply=Selected,
        errors=(
            UnknownModel,
            UnknownProfile,
            ModelInvalid,
            Conflict,
            EngineFailed,
            StoreFull,
            ConfigError,
        ),
    ),
}


class ModelsResource:
    """All models that can be named."""

    def __init__(self, library: Library, models: model_names.ModelNames) -> None:
        self._library = library
        self._models = models

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the models in a body that the seed's clients and OpenAI's can both read."""
        names = [file.name for file in self._library.list()]
        found = {name: self._library.kind(name) for name in names}
        kinds = {name: kind.value if kind else None for name, kind in found.items()}
        data = [view(model) for model in self._models.list()]
        send(resp, ModelNames(models=names, kinds=kinds, data=data))


class ModelResource:
    """The model that serves."""

    def __init__(self, selector: ModelSelector) -> None:
        self._selector = selector

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Load a model and select a profile. Answer once the model serves."""
        wanted = body.read(req, SelectBody)
        if wanted.model is None and wanted.model_config is None:
            raise InvalidField("name a model, a model_config (profile) or both", param="model")
        selection = self._selector.select(
            wanted.model, wanted.model_config, actor=caller_of(req).id
        )
        send(resp, Selected(model=selection.model, profile=selection.profile))
