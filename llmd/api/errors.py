"""The answers to errors: a table from error class to status, and the body they all share."""

from __future__ import annotations

import logging
from typing import NamedTuple

import falcon

from llmd import errors
from llmd.api import reply

log = logging.getLogger(__name__)


class Kind(NamedTuple):
    """The status of an error, and the `type` and `code` of its body."""

    status: int
    type: str
    code: str | None


_INVALID = "invalid_request_error"
_AUTH = "authentication_error"
_SERVER = "server_error"

_CLIENT_GONE = "499 Client Closed Request"

KINDS: dict[type[errors.LlmdError], Kind] = {
    errors.MalformedBody: Kind(400, _INVALID, "malformed_body"),
    errors.BodyTooLarge: Kind(413, _INVALID, "body_too_large"),
    errors.InvalidField: Kind(422, _INVALID, "invalid_field"),
    errors.PromptTooLong: Kind(400, "exceed_context_size_error", "context_length_exceeded"),
    errors.ModelInvalid: Kind(422, _INVALID, "model_invalid"),
    errors.Unauthorized: Kind(401, _AUTH, "invalid_api_key"),
    errors.Forbidden: Kind(403, "permission_error", "forbidden"),
    errors.TooManyFailures: Kind(429, _AUTH, "too_many_failures"),
    errors.UnknownRoute: Kind(404, _INVALID, "unknown_route"),
    errors.UnknownModel: Kind(404, _INVALID, "model_not_found"),
    errors.UnknownProfile: Kind(404, _INVALID, "profile_not_found"),
    errors.UnknownSession: Kind(404, _INVALID, "session_not_found"),
    errors.UnknownResponse: Kind(404, _INVALID, "response_not_found"),
    errors.UnknownKey: Kind(404, _INVALID, "key_not_found"),
    errors.Conflict: Kind(409, _INVALID, "conflict"),
    errors.Busy: Kind(503, _SERVER, "busy"),
    errors.Draining: Kind(503, _SERVER, "draining"),
    errors.EngineLoading: Kind(503, _SERVER, "model_loading"),
    errors.EngineFailed: Kind(503, _SERVER, "engine_failed"),
    errors.EngineDied: Kind(503, _SERVER, "engine_died"),
    # Only the log shows this status: it is nginx's for a request that its client closed.
    errors.ClientGone: Kind(499, _SERVER, "client_gone"),
    errors.StoreUnavailable: Kind(503, _SERVER, "store_unavailable"),
    errors.StoreFull: Kind(507, _SERVER, "store_full"),
    errors.SchemaError: Kind(503, _SERVER, "store_damaged"),
    errors.ConfigError: Kind(500, _SERVER, "misconfigured"),
    errors.ImportRefused: Kind(422, _INVALID, "import_refused"),
}

_FALCON_CODES = {
    400: "bad_request",
    404: "unknown_route",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    431: "header_too_large",
    500: "internal_error",
    501: "not_implemented",
    503: "busy",
}


def kind_of(error: errors.LlmdError) -> Kind:
    """Return the row of the error's class, or of its nearest base class in the table."""
    for base in type(error).__mro__:
        if base in KINDS:
            return KINDS[base]
    return Kind(500, _SERVER, "internal_error")


def body_of(error: errors.LlmdError) -> dict[str, object]:
    """Return the body that reports an error to a client."""
    kind = kind_of(error)
    extra: dict[str, object] = {}
    if isinstance(error, errors.PromptTooLong):
        extra = {"n_prompt_tokens": error.num_prompt_tokens, "n_ctx": error.num_context_tokens}
    return _body(kind, error.message, error.param, extra)


def transport_body(status: int, message: str) -> dict[str, object]:
    """Return the body for a request that is refused before its route is known."""
    type_ = _INVALID if status < 500 else _SERVER
    return _body(Kind(status, type_, _FALCON_CODES.get(status)), message)


def internal_body() -> dict[str, object]:
    """Return the body for an unexpected exception. It has no detail of the exception."""
    message = "something went wrong in the server: its log has the details by x-request-id"
    return _body(Kind(500, _SERVER, "internal_error"), message)


def _body(
    kind: Kind, message: str, param: str | None = None, extra: dict[str, object] | None = None
) -> dict[str, object]:
    inner = {"message": message, "type": kind.type, "param": param, "code": kind.code}
    # The outer message is what the seed's clients read.
    return {"error": inner | (extra or {}), "message": message}


def register(app: falcon.App[falcon.Request, falcon.Response]) -> None:
    """Make `app` answer every error with the same form of body."""
    app.add_error_handler(errors.LlmdError, _on_llmd_error)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(Exception, _on_any_error)


def _on_llmd_error(
    req: falcon.Request, resp: falcon.Response, error: errors.LlmdError, params: dict[str, object]
) -> None:
    kind = kind_of(error)
    if kind.status == 422 and req.context.get("is_openai"):
        # OpenAI's API answers an invalid field with 400.
        kind = kind._replace(status=400)
    if kind.status == 409:
        # Without it OpenAI's clients retry a 409 twice.
        resp.set_header("x-should-retry", "false")
    if kind.status == 500:
        log.error("%s %s: %s", req.method, req.path, error.message)
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        resp.set_header("Retry-After", str(retry_after_s))
    if kind.status == 401:
        resp.set_header("WWW-Authenticate", 'Bearer realm="llmd"')
    _send(resp, kind.status, body_of(error))


def _on_http_error(
    req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: dict[str, object]
) -> None:
    """Answer an error that Falcon itself raises, such as an unknown path or method."""
    status = error.status_code
    if error.headers:
        resp.set_headers(error.headers)
    path = errors.printable(req.path)
    message = {
        404: f"there is no route {path}",
        405: f"{path} does not allow {errors.printable(req.method)}",
    }.get(status, error.description or error.title or "the request cannot be read")
    _send(resp, status, transport_body(status, message))


def _on_any_error(
    req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, object]
) -> None:
    """Log an unexpected exception. The client learns only the id by which the log has it."""
    log.error("%s %s failed", req.method, req.path, exc_info=error)
    _send(resp, 500, internal_body())


def _send(resp: falcon.Response, status: int, body: dict[str, object]) -> None:
    resp.status = _CLIENT_GONE if status == 499 else falcon.code_to_http_status(status)
    reply.send(resp, body)
