"""Answers that are refused, cancelled, interrupted or cannot be stored."""

from __future__ import annotations

import pytest

from llmd.engine.protocol import Delta, Refused
from llmd.errors import (
    BadRequest,
    Busy,
    ClientGone,
    Draining,
    EngineDied,
    EngineFailed,
    EngineLoading,
    InvalidField,
    LlmdError,
    PromptTooLong,
    StoreFull,
)
from tests.support.answers import finish, is_free, start, turns
from tests.support.fake_engine import begins, done, silent
from tests.support.service import Background, Service, until


def test_a_store_that_fails_acknowledges_nothing(service: Service) -> None:
    """If the turn cannot be stored, there is an error instead of a result."""
    answer = start(service)
    service.db.is_full = True
    with pytest.raises(StoreFull):
        finish(answer)
    assert answer.result is None
    assert is_free(service)
    service.db.is_full = False
    assert turns(service) == []


def test_closing_early_cancels_and_keeps_what_there_is(service: Service) -> None:
    """A cancelled turn has all text, including the text that came after the cancel."""
    service.engine.script = begins("Hel")
    service.engine.on_cancel = [Delta(0, "lo"), done("cancelled", num_tokens=2)]
    answer = start(service)
    assert next(answer) == "Hel"
    answer.close()
    assert service.engine.cancelled == [service.engine.generations[0].id]
    [turn] = turns(service)
    assert (turn.assistant, turn.finish_reason) == ("Hello", "cancelled")
    assert turn.num_completion_tokens == 2
    assert is_free(service)


def test_closing_before_the_first_text_keeps_nothing(service: Service) -> None:
    """A cancelled answer without text is not stored, since it would be in later prompts."""
    service.engine.script = begins()
    start(service).close()
    assert turns(service) == []
    assert is_free(service)


def test_closing_after_the_end_changes_nothing(service: Service) -> None:
    """Closing a complete answer neither cancels it nor stores it again."""
    answer = start(service)
    finish(answer)
    answer.close()
    assert (len(turns(service)), service.engine.cancelled) == (1, [])


def test_a_closed_answer_gives_no_more_text(service: Service) -> None:
    """The iteration of a closed answer ends without a result."""
    answer = start(service)
    answer.close()
    assert list(answer) == []
    assert answer.result is None


def test_a_client_that_goes_away_ends_its_answer(service: Service) -> None:
    """If its client disconnects, an answer is cancelled and its text so far is stored."""
    service.engine.script = begins("Hel")
    gone: list[bool] = []
    answer = start(service, lambda: bool(gone))
    assert next(answer) == "Hel"
    gone.append(True)
    with pytest.raises(ClientGone):
        next(answer)
    assert [turn.assistant for turn in turns(service)] == ["Hel"]
    assert is_free(service)


def test_a_client_that_goes_away_during_the_prefill_leaves_nothing(service: Service) -> None:
    """A client may disconnect before its prompt is accepted; nothing is stored then."""
    service.engine.script = silent
    with pytest.raises(ClientGone):
        start(service, lambda: bool(service.engine.generations))
    assert len(service.engine.cancelled) == 1
    assert turns(service) == []
    assert is_free(service)


@pytest.mark.parametrize("texts", [(), ("Hel", "lo")])
def test_a_worker_that_dies_leaves_no_turn_and_no_wait(
    service: Service, texts: tuple[str, ...]
) -> None:
    """When the worker dies, the stream is free at once and no cancel is sent."""
    service.engine.script = begins(*texts, then=[EngineDied("the worker ended")])
    answer = start(service)
    with pytest.raises(EngineDied):
        finish(answer)
    assert is_free(service)
    assert service.engine.cancelled == []
    answer.close()
    assert turns(service) == []


def test_a_worker_that_dies_under_a_cancel_ends_the_wait_for_it(service: Service) -> None:
    """If the worker dies during a cancel, closing stores nothing and raises nothing."""
    service.engine.script = begins("Hel")
    service.engine.on_cancel = [EngineDied("the worker ended")]
    answer = start(service)
    next(answer)
    answer.close()
    assert turns(service) == []
    assert is_free(service)


def test_a_worker_that_never_ends_a_cancelled_answer_keeps_no_place(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for the end of a cancelled answer has a time limit."""
    monkeypatch.setattr("llmd.chat.run.CANCEL_WITHIN_S", 0.0)
    service.engine.script = begins("Hel")
    service.engine.on_cancel = []
    answer = start(service)
    next(answer)
    answer.close()
    assert is_free(service)


def test_a_cancelled_answer_that_cannot_be_kept_gives_its_place_back(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """An error while a cancelled answer is stored is only logged."""
    service.engine.script = begins("Hel")
    answer = start(service)
    next(answer)
    service.db.is_full = True
    answer.close()
    assert "cannot store a cancelled answer" in caplog.text
    assert is_free(service)


@pytest.mark.parametrize("error", [EngineLoading("loading"), EngineFailed("failed")])
def test_an_engine_that_cannot_serve_refuses_before_anybody_waits(
    service: Service, error: LlmdError
) -> None:
    """A request that the engine cannot serve is refused before it is queued."""
    service.engine.not_ready = error
    with pytest.raises(type(error)):
        start(service)
    assert service.engine.requests == []
    assert is_free(service)


def test_an_error_of_the_engine_on_submit_gives_the_place_back(service: Service) -> None:
    """Even an unexpected error frees the stream."""
    service.engine.submit_error = RuntimeError("unforeseen")
    with pytest.raises(RuntimeError):
        start(service)
    assert is_free(service)


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (
            Refused(id=0, message="too long", num_prompt_tokens=99, num_context_tokens=64),
            PromptTooLong,
        ),
        (Refused(id=0, message="the model's chat template refuses this"), InvalidField),
    ],
)
def test_a_prompt_that_the_worker_refuses_is_refused_at_the_start(
    service: Service, refused: Refused, error: type[BadRequest]
) -> None:
    """A refused prompt raises an error before the answer begins."""
    service.engine.script = lambda _request: [refused]
    with pytest.raises(error) as raised:
        start(service)
    assert raised.value.param == "prompt"
    assert service.engine.cancelled == []
    assert is_free(service)


def test_a_full_queue_is_reported_at_the_start(service: Service) -> None:
    """A request beyond the queue gets `Busy`; the others are not affected."""
    service.engine.script = begins()
    answers = [start(service, session_id=None) for _ in range(2)]
    waiting = [Background(lambda: start(service, session_id=None)) for _ in range(2)]
    until(lambda: service.admission.num_queued == 2)
    with pytest.raises(Busy):
        start(service)
    for answer in answers:
        answer.close()
    for background in waiting:
        background.wait().close()
    assert is_free(service)


def test_the_end_of_draining_cuts_an_answer_off(service: Service) -> None:
    """When the time to drain is over, an answer is cancelled and its text so far stored."""
    service.engine.script = begins("Hel")
    answer = start(service)
    next(answer)
    service.admission.drain()
    service.admission.expire()
    with pytest.raises(Draining):
        next(answer)
    assert [(turn.assistant, turn.finish_reason) for turn in turns(service)] == [
        ("Hel", "cancelled")
    ]
    assert is_free(service)


def test_the_end_may_come_before_it_was_asked_for(service: Service) -> None:
    """A generation that completes during its cancel is stored as cancelled."""
    service.engine.script = begins("Hel")
    service.engine.on_cancel = [done("stop", num_tokens=1)]
    answer = start(service)
    next(answer)
    answer.close()
    assert [turn.finish_reason for turn in turns(service)] == ["cancelled"]
