"""Helpers that request answers without HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmd.chat.answer_request import AnswerRequest, AnswerResult
from llmd.chat.answers import Answer
from llmd.store.sessions import Turn
from tests.support.service import Service


def never() -> bool:
    """Return False: the client stays connected."""
    return False


def start(service: Service, is_gone: Callable[[], bool] = never, /, **fields: Any) -> Answer:
    """Begin an answer to `hi` in session 1, unless other fields are given."""
    request = AnswerRequest(**({"prompt": "hi", "session_id": "1"} | fields))
    return service.answers.start(service.user_key.id, request, is_gone)


def finish(answer: Answer) -> AnswerResult:
    """Read an answer to its end. Return its result."""
    for _ in answer:
        pass
    answer.close()
    assert answer.result is not None
    return answer.result


def turns(service: Service) -> list[Turn]:
    """Return the stored turns of session 1."""
    num_turns, found = service.sessions.history(service.user_key.id, "1", 1000)
    assert num_turns == len(found)
    return found


def is_free(service: Service) -> bool:
    """Return whether no request is admitted or queued."""
    return (service.admission.num_active, service.admission.num_queued) == (0, 0)
