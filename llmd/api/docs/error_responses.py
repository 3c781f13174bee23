"""The error responses that an operation can return: statuses, codes, headers and their body."""

from __future__ import annotations

import inspect
import itertools
from typing import NamedTuple

from msgspec import UNSET, Struct, UnsetType

from llmd import errors
from llmd.api.access import Access
from llmd.api.errors import KINDS, transport_body
from llmd.api.route import JsonSchema, Operation, Route

REQUEST_ID = "x-request-id"


class ErrorDetail(Struct, frozen=True, kw_only=True):
    """The details of an error: `code` is its kind, `param` the field, the numbers count tokens."""

    message: str
    type: str
    param: str | None
    code: str | None
    n_prompt_tokens: int | UnsetType = UNSET
    n_ctx: int | UnsetType = UNSET


class Error(Struct, frozen=True, kw_only=True):
    """The body of every error response."""

    error: ErrorDetail
    message: str


class ErrorCause(NamedTuple):
    """A reason for an error response: its status, its `code`, and a text for people."""

    status: int
    code: str
    text: str
    has_retry_after: bool = False


_TRANSPORT_ERRORS = (
    (400, "The request cannot be read."),
    (405, "The path does not allow this method. `Allow` lists those that it allows."),
    (408, "The client sent the request too slowly."),
    (413, "The body has more bytes than `[server] max_body_bytes`."),
    (431, "The headers of the request are too long."),
    (500, "Something went wrong in the server. Its log has the details by `x-request-id`."),
    (501, "The transfer encoding is not supported."),
)
"""Status and text of the errors that any request can get, whatever its route."""

_KEY_ERRORS = (
    errors.Unauthorized,
    errors.TooManyFailures,
    errors.Busy,
    errors.StoreUnavailable,
    errors.SchemaError,
)
_BODY_ERRORS = (errors.MalformedBody, errors.InvalidField)
_PROMPT_ERRORS = (
    errors.Busy,
    errors.Draining,
    errors.EngineLoading,
    errors.EngineFailed,
    errors.EngineDied,
)
_TEXTS: dict[type[errors.LlmdError], str] = {
    errors.Forbidden: "The key's role does not allow this, or the host name is not allowed."
}

HEADERS: dict[str, JsonSchema] = {
    REQUEST_ID: {
        "description": "The id of the request, by which the log has it too.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "After how many seconds a retry may succeed.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {"description": "How to send a key.", "schema": {"type": "string"}},
    "Allow": {"description": "The methods that the path allows.", "schema": {"type": "string"}},
    "x-should-retry": {
        "description": "Keeps OpenAI's clients from retrying automatically.",
        "schema": {"type": "string", "enum": ["false"]},
    },
}
_HEADER_OF_STATUS = {401: "WWW-Authenticate", 405: "Allow", 409: "x-should-retry"}


def error_causes(route: Route, operation: Operation) -> list[ErrorCause]:
    """Return every reason for which an operation can be refused or fail, sorted by status."""
    is_openai = bool(getattr(route.resource, "is_openai", False))
    # Every operation is refused under a host name that is not allowed.
    kinds: list[type[errors.LlmdError]] = [errors.Forbidden, *operation.errors]
    if operation.access is not Access.OPEN:
        kinds += _KEY_ERRORS
    if operation.body is not None:
        kinds += _BODY_ERRORS
    elif operation.query:
        kinds.append(errors.InvalidField)
    if errors.PromptTooLong in operation.errors:
        # The operation uses the engine.
        kinds += _PROMPT_ERRORS
    found = {_cause_of(kind, is_openai) for kind in kinds} | {
        _transport_cause(*row) for row in _TRANSPORT_ERRORS
    }
    return sorted(found)


def error_responses(route: Route, operation: Operation) -> dict[str, JsonSchema]:
    """Return the error responses of an operation as objects of OpenAPI, by name.

    The name consists of the status and the codes. Operations with the same response share it.
    """
    causes = error_causes(route, operation)
    by_status = [list(group) for _, group in itertools.groupby(causes, lambda cause: cause.status)]
    return {
        "-".join([str(group[0].status), *(cause.code for cause in group)]): _response(group)
        for group in by_status
    }


def header_refs(*names: str) -> JsonSchema:
    """Return references to the headers with these names in the components."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


DEFAULT_RESPONSE: JsonSchema = {
    "description": "Any other error.",
    "headers": header_refs(REQUEST_ID),
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}


def _cause_of(kind: type[errors.LlmdError], is_openai: bool) -> ErrorCause:
    """Return the cause of a class of errors. Its text is the summary of the docstring."""
    status, _, code = KINDS[kind]
    if status == 422 and is_openai:
        status = 400
    text = _TEXTS.get(kind) or (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
    has_retry_after = hasattr(kind, "retry_after_s") or issubclass(
        kind, errors.Unavailable | errors.TooManyFailures
    )
    return ErrorCause(status, str(code), text, has_retry_after)


def _transport_cause(status: int, text: str) -> ErrorCause:
    inner = transport_body(status, "")["error"]
    code = inner["code"] if isinstance(inner, dict) else None
    return ErrorCause(status, str(code), text)


def _response(causes: list[ErrorCause]) -> JsonSchema:
    names = [REQUEST_ID]
    if causes[0].status in _HEADER_OF_STATUS:
        names.append(_HEADER_OF_STATUS[causes[0].status])
    if any(cause.has_retry_after for cause in causes):
        names.append("Retry-After")
    lines = [f"`{cause.code}`: {cause.text}" for cause in causes]
    return DEFAULT_RESPONSE | {"description": "\n\n".join(lines), "headers": header_refs(*names)}
