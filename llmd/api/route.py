"""The description of a route: its methods, and the access, input and output of each.

The key check, the OpenAPI document and the page for people all use this one description.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from llmd import codecs
from llmd.api.access import Access
from llmd.errors import LlmdError

JsonSchema = dict[str, Any]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a path, a query or a header. Its values are described by JSON Schema."""

    name: str
    description: str = ""
    schema: JsonSchema = field(default_factory=lambda: {"type": "string"})
    required: bool = False


LIMIT = Parameter(
    "limit",
    "How many to list at most.",
    {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
)
AFTER = Parameter("after", "The `next` of the page before.")


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A method of a route.

    `status` is the status of success, and `reply` the type of its body, or None if it has none.
    `stream` describes the events that are sent instead for `"stream": true`. `errors` lists the
    errors that are particular to this operation. The errors of every operation with a key, with a
    body, or with a prompt (known by `PromptTooLong`) are added to them.
    """

    summary: str
    access: Access
    body: Any = None
    body_optional: bool = False
    reply: Any = None
    status: int = 200
    stream: str = ""
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    errors: tuple[type[LlmdError], ...] = ()
    content_type: str = "application/json"
    description: str = ""

    def __post_init__(self) -> None:
        if self.body is not None:
            codecs.register(self.body)


@dataclass(frozen=True)
class Route:
    """A path, the resource that answers there, and the operation of each method.

    The same resource answers at the paths in `aliases`.
    """

    path: str
    resource: object
    operations: dict[str, Operation]
    tag: str = "Other"
    aliases: tuple[str, ...] = ()

    @property
    def access(self) -> dict[str, Access]:
        """The access that each method requires."""
        return {method: operation.access for method, operation in self.operations.items()}

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path at which the resource answers."""
        return (self.path, *self.aliases)


PATH_PARAMETERS = {
    parameter.name: parameter
    for parameter in (
        Parameter(
            "session_id",
            "The session's id, as the client chose it.",
            {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$", "examples": ["1"]},
            required=True,
        ),
        Parameter(
            "name",
            "The profile's name.",
            {
                "type": "string",
                "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
                "examples": ["default"],
            },
            required=True,
        ),
        Parameter(
            "model_id",
            "A profile's name, or a GGUF file's.",
            {"type": "string", "minLength": 1, "examples": ["default"]},
            required=True,
        ),
        Parameter(
            "response_id",
            "The response's id.",
            {"type": "string", "minLength": 1, "examples": ["resp_0a1b2c"]},
            required=True,
        ),
        Parameter(
            "key_id",
            "The key's id: the part between its underscores.",
            {"type": "string", "minLength": 1, "examples": ["0a1b2c3d4e5f"]},
            required=True,
        ),
    )
}
"""The parameters of paths, by name. One that is not listed takes any text that is not empty."""

_PATH_FIELD = re.compile(r"{(\w+)(?::[^}]*)?}")
"""Matches a parameter in a path's template, with its converter if it has one."""


def path_parameters(path: str) -> list[Parameter]:
    """Return the parameters of a path's template."""
    plain: JsonSchema = {"type": "string", "minLength": 1}
    return [
        PATH_PARAMETERS.get(name, Parameter(name, "", plain, required=True))
        for name in _PATH_FIELD.findall(path)
    ]


def plain_path(path: str) -> str:
    """Return a path's template without the names of its converters."""
    return _PATH_FIELD.sub(r"{\1}", path)
