"""Requests that come again: they get the answer that was made for them the first time."""

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


def test_the_retry_of_a_client_gets_the_answer_that_was_made(service: Service) -> None:
    """The whole of it, under the same id."""
    first = _ask(service, {"X-Stainless-Retry-Count": "0"})
    assert _ask(service, {"X-Stainless-Retry-Count": "1"}) == first
    assert _ask(service, {"X-Stainless-Retry-Count": "2"}) == first
    assert len(service.engine.requests) == 1
    assert is_free(service)


def test_what_is_no_retry_is_answered_anew(service: Service) -> None:
    """Neither the same question asked first again, nor another one."""
    _ask(service, {"X-Stainless-Retry-Count": "0"})
    _ask(service, {"X-Stainless-Retry-Count": "0"})
    _ask(service, {"X-Stainless-Retry-Count": "1"}, seed=5)
    _ask(service, {})
    assert len(service.engine.requests) == 4


def test_the_same_idempotency_key_gets_the_same_answer(service: Service) -> None:
    """Without any other header."""
    first = _ask(service, {"Idempotency-Key": "k"})
    assert first[0] == 200
    assert _ask(service, {"Idempotency-Key": "k"}) == first
    assert len(service.engine.requests) == 1
    assert _ask(service, {"Idempotency-Key": "l"})[1]["id"] != first[1]["id"]


def test_an_idempotency_key_of_another_user_is_another(service: Service) -> None:
    """Nobody gets an answer that somebody else asked for."""
    headers = {"Idempotency-Key": "k"}
    first = service.ask("POST", PATH, HI, headers=headers).json
    second = service.ask("POST", PATH, HI, headers=headers, key=service.other).json
    assert second["id"] != first["id"]


@pytest.mark.parametrize(("key", "fields"), [("k", {"seed": 5}), ("", {}), ("k" * 257, {})])
def test_an_idempotency_key_that_cannot_be_is_refused(
    service: Service, key: str, fields: dict[str, Any]
) -> None:
    """One that was used for another body, an empty one, one that is too long."""
    _ask(service, {"Idempotency-Key": "k"})
    result = service.ask("POST", PATH, HI | fields, headers={"Idempotency-Key": key})
    assert service.code(result) == (400, "invalid_field")
    assert result.json["error"]["param"] == "Idempotency-Key"
    assert len(service.engine.requests) == 1


def test_an_error_is_not_kept_for_the_retry(service: Service) -> None:
    """It is tried again."""
    service.engine.script = begins(then=[EngineDied("the worker ended")])
    assert _ask(service, {"Idempotency-Key": "k"})[0] == 503
    service.engine.script = says("Hello")
    assert _ask(service, {"Idempotency-Key": "k"})[0] == 200
