"""What a route is: its methods, who may use each, what they take and what they give.

One description is behind the check of the key, the OpenAPI document and the page for people.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from llmd.api.access import Access
from llmd.errors import LlmdError

JsonSchema = dict[str, Any]


@dataclass(frozen=True)
class Parameter:
    """A part of a request that is not in its body. What it takes is told as JSON Schema."""

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

    `reply` is the type of the body with `status`, and of the only such answer; None: it has no
    body. `stream` tells the events that are sent instead for `"stream": true`. `errors` are those
    beside the ones that every operation of the kind may end in: with a key, with a body, with a
    prompt that can be too long.
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


@dataclass(frozen=True)
class Route:
    """A path, what answers there, and what can be done there by each method.

    At `aliases` the same resource answers.
    """

    path: str
    resource: object
    operations: dict[str, Operation]
    tag: str = "Other"
    aliases: tuple[str, ...] = ()

    @property
    def access(self) -> dict[str, Access]:
        """Who may use each method."""
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
            "The session's id, as the client has chosen it.",
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
            "The key's id, which is the part between its underscores.",
            {"type": "string", "minLength": 1, "examples": ["0a1b2c3d4e5f"]},
            required=True,
        ),
    )
}
"""What a path takes in each of its places, by name; in any other it takes what has a character."""

_PATH_FIELD = re.compile(r"{(\w+)(?::[^}]*)?}")


def path_parameters(path: str) -> list[Parameter]:
    """Return what the places of a path's template take."""
    plain: JsonSchema = {"type": "string", "minLength": 1}
    return [
        PATH_PARAMETERS.get(name, Parameter(name, "", plain, required=True))
        for name in _PATH_FIELD.findall(path)
    ]


def plain_path(path: str) -> str:
    """Return a path's template without the names of its converters."""
    return _PATH_FIELD.sub(r"{\1}", path)
