"""Repeated requests get the answer of the first one."""

from __future__ import annotations

from typing import Any

import pytest

from llmd.errors import EngineDied
from tests.support.answers import is_free
from tests.support.fake_engine import begins, says
from tests.support.service import Service

PATH = "/v1/chat/completions"
HI: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}


def _ask(service: Service, headers: dict[str, str], **fields: Any) -> tuple[int, Any]:
    result = service.ask("POST", PATH, HI | fields, headers=headers)
    return result.status_code, result.json


def test_a_retry_gets_the_first_answer(service: Service) -> None:
    """A retry gets the whole first answer, under the same id."""
    first = _ask(service, {"X-Stainless-Retry-Count": "0"})
    assert _ask(service, {"X-Stainless-Retry-Count": "1"}) == first
    assert _ask(service, {"X-Stainless-Retry-Count": "2"}) == first
    assert len(service.engine.requests) == 1
    assert is_free(service)


def test_a_request_that_is_no_retry_gets_a_new_answer(service: Service) -> None:
    """A first attempt, another body and a request without the header each get a new answer."""
    _ask(service, {"X-Stainless-Retry-Count": "0"})
    _ask(service, {"X-Stainless-Retry-Count": "0"})
    _ask(service, {"X-Stainless-Retry-Count": "1"}, seed=5)
    _ask(service, {})
    assert len(service.engine.requests) == 4


def test_the_same_idempotency_key_gets_the_same_answer(service: Service) -> None:
    """The same Idempotency-Key gets the same answer, without any other header."""
    first = _ask(service, {"Idempotency-Key": "k"})
    assert first[0] == 200
    assert _ask(service, {"Idempotency-Key": "k"}) == first
    assert len(service.engine.requests) == 1
    assert _ask(service, {"Idempotency-Key": "l"})[1]["id"] != first[1]["id"]


def test_an_idempotency_key_belongs_to_its_user(service: Service) -> None:
    """The same Idempotency-Key of another user gets an answer of its own."""
    headers = {"Idempotency-Key": "k"}
    first = service.ask("POST", PATH, HI, headers=headers).json
    second = service.ask("POST", PATH, HI, headers=headers, key=service.other).json
    assert second["id"] != first["id"]


@pytest.mark.parametrize(("key", "fields"), [("k", {"seed": 5}), ("", {}), ("k" * 257, {})])
def test_an_invalid_idempotency_key_is_refused(
    service: Service, key: str, fields: dict[str, Any]
) -> None:
    """An Idempotency-Key that is empty, too long or used for another body is refused."""
    _ask(service, {"Idempotency-Key": "k"})
    result = service.ask("POST", PATH, HI | fields, headers={"Idempotency-Key": key})
    assert service.code(result) == (400, "invalid_field")
    assert result.json["error"]["param"] == "Idempotency-Key"
    assert len(service.engine.requests) == 1


def test_an_error_is_not_kept_for_the_retry(service: Service) -> None:
    """After an error, a repeated request runs anew."""
    service.engine.script = begins(then=[EngineDied("the worker ended")])
    assert _ask(service, {"Idempotency-Key": "k"})[0] == 503
    service.engine.script = says("Hello")
    assert _ask(service, {"Idempotency-Key": "k"})[0] == 200
