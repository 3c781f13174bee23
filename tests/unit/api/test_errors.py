"""The answers to errors."""

from __future__ import annotations

import logging

import msgspec
import pytest
from falcon import testing

from llmd import errors
from llmd.api.errors import KINDS, Kind, body_of, kind_of
from tests.support.service import Service


def concrete(base: type[errors.LlmdError]) -> list[type[errors.LlmdError]]:
    """Return the classes of the tree that are raised."""
    found = [] if "Never raised directly" in (base.__doc__ or "") else [base]
    for child in base.__subclasses__():
        if child.__module__ == errors.__name__:
            found += concrete(child)
    return found


def made(kind: type[errors.LlmdError]) -> errors.LlmdError:
    """Return an error of a class."""
    if kind is errors.Unauthorized:
        return errors.Unauthorized()
    if kind is errors.TooManyFailures:
        return errors.TooManyFailures(30)
    if kind is errors.PromptTooLong:
        return errors.PromptTooLong(99, 64)
    if issubclass(kind, errors.Unavailable):
        return kind("what is wrong")
    return kind("what is wrong", param="field")


def test_every_error_that_is_raised_has_a_row() -> None:
    """Every error class that is raised has a row in the table, and no other class has."""
    assert set(concrete(errors.LlmdError)) == set(KINDS)


@pytest.mark.parametrize("kind", concrete(errors.LlmdError), ids=lambda kind: str(kind.__name__))
def test_every_error_has_the_common_body(kind: type[errors.LlmdError]) -> None:
    """Every error has the body of OpenAI's API, and `message` again for the seed's clients."""
    error = made(kind)
    body = body_of(error)
    inner = body["error"]
    assert isinstance(inner, dict)
    assert list(body) == ["error", "message"]
    assert body["message"] == inner["message"] == error.message
    assert (inner["type"], inner["code"]) == kind_of(error)[1:]
    assert inner["param"] == error.param
    assert inner["code"]


def test_a_subclass_without_a_row_takes_that_of_its_base() -> None:
    """A subclass without a row uses that of its nearest base class."""

    class Full(errors.Busy):
        """A subclass without a row."""

    assert kind_of(Full("full")) == KINDS[errors.Busy]
    assert kind_of(errors.LlmdError("?")) == Kind(500, "server_error", "internal_error")


def test_each_error_has_a_code_of_its_own() -> None:
    """No two errors share a code."""
    codes = [kind.code for kind in KINDS.values()]
    assert len(codes) == len(set(codes))


def test_a_too_long_prompt_is_answered_with_both_counts() -> None:
    """The error of a too long prompt has both counts, under the names of llama.cpp's server."""
    inner = body_of(errors.PromptTooLong(99, 64))["error"]
    assert isinstance(inner, dict)
    assert (inner["n_prompt_tokens"], inner["n_ctx"]) == (99, 64)
    assert (inner["param"], inner["code"]) == ("prompt", "context_length_exceeded")


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (errors.PromptTooLong(99, 64), 400, "context_length_exceeded", None),
        (errors.Conflict("not now"), 409, "conflict", None),
        (errors.Busy("full", retry_after_s=5), 503, "busy", "5"),
        (errors.Draining("going down", retry_after_s=10), 503, "draining", "10"),
        (errors.EngineLoading("loading"), 503, "model_loading", "2"),
        (errors.EngineFailed("broken", retry_after_s=30), 503, "engine_failed", "30"),
        (errors.EngineDied("died"), 503, "engine_died", "2"),
        (errors.StoreUnavailable("locked"), 503, "store_unavailable", "2"),
        (errors.StoreFull("full"), 507, "store_full", None),
        (errors.TooManyFailures(30), 429, "too_many_failures", "30"),
        (errors.ClientGone("gone"), 499, "client_gone", None),
    ],
)
def test_an_error_has_its_status_and_retry_after(
    service: Service,
    error: errors.LlmdError,
    status: int,
    code: str,
    retry_after: str | None,
) -> None:
    """An error has its status, and `Retry-After` if it is temporary."""
    service.engine.submit_error = error
    result = service.ask("POST", "/answer", {"prompt": "hi"})
    assert service.code(result) == (status, code)
    assert result.headers.get("retry-after") == retry_after


def test_an_unexpected_exception_is_answered_without_details(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception is an internal error; only the log has the traceback."""
    caplog.set_level(logging.INFO)
    service.engine.submit_error = RuntimeError("<object at 0x7f00deadbeef> in /usr/lib/x.py")
    result = service.ask("POST", "/answer", {"prompt": "hi"})
    assert service.code(result) == (500, "internal_error")
    for word in ("0x", "Traceback", ".py", "RuntimeError", "object"):
        assert word not in result.text
    assert "0x7f00deadbeef" in caplog.text
    [line] = [at for at in caplog.records if at.name == "llmd.request"]
    assert " 500 " in line.getMessage()


def test_an_unknown_path_is_answered_in_the_common_form(service: Service) -> None:
    """An unknown path is a 404 in the common form, with the path cut and printable."""
    result = service.ask("GET", "/nothing/here", key="")
    assert service.code(result) == (404, "unknown_route")
    assert "/nothing/here" in result.json["message"]
    result = service.ask("GET", "/" + "x" * 5000 + "%0a%1b[2J", key="")
    assert service.code(result) == (404, "unknown_route")
    assert len(result.json["message"]) < 200
    assert result.json["message"].isprintable()


def test_a_path_that_is_not_utf_8_is_no_route(service: Service) -> None:
    """A path that is not UTF-8 is a 404, not a 500."""
    result = service.ask("GET", "/%ff%fe%ed%a0%80", key="")
    assert service.code(result) == (404, "unknown_route")


def test_a_method_that_is_not_allowed_is_answered_with_allow(service: Service) -> None:
    """A method that a route does not allow is a 405 with `Allow`."""
    result = service.ask("DELETE", "/answer")
    assert service.code(result) == (405, "method_not_allowed")
    assert set(result.headers["allow"].split(", ")) >= {"GET", "POST"}


@pytest.mark.parametrize("method", ["WEBSOCKET", "TRACE", "CONNECT", "HEAD", "FROB"])
def test_an_unusual_method_is_refused_in_the_common_form(service: Service, method: str) -> None:
    """An unusual method is refused in the common form, even if Falcon knows it."""
    start = testing.StartResponseMock()
    environ = testing.create_environ("/answer") | {"REQUEST_METHOD": method}
    body = b"".join(service.app(environ, start))
    assert start.status is not None
    assert start.status[:3] in {"400", "401", "405"}
    assert start.headers_dict["x-request-id"]
    # The response to HEAD has no body.
    assert method == "HEAD" or msgspec.json.decode(body)["error"]["code"]


def test_a_refusal_of_the_key_names_the_scheme(service: Service) -> None:
    """A 401 has `WWW-Authenticate`, as RFC 9110 requires."""
    result = service.ask("GET", "/auth", key="")
    assert service.code(result) == (401, "invalid_api_key")
    assert result.headers["www-authenticate"].startswith("Bearer")
