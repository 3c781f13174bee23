from __future__ import annotations

import pytest

from llmd.chat import retries
from llmd.chat.completions import Options
from llmd.chat.joined_run import JoinedRun
from llmd.chat.retries import Attempt
from llmd.engine.protocol import Delta
from llmd.errors import ClientGone, InvalidField, UnknownModel
from tests.support.answers import is_free, never
from tests.support.fake_engine import begins, done, says
from tests.support.retries_harness import Desk, attempt
from tests.support.service import Background, until


def _text(run: JoinedRun) -> str:
    text = "".join(piece.text for piece in run if isinstance(piece, Delta))
    run.close()
    assert run.outcome is not None
    assert run.outcome.text == text
    return text


def test_finished_answer_is_given_again(desk: Desk) -> None:
    """A retry gets every piece under the same id, and the engine is not asked again."""
    first = desk.run(attempt(again=False))
    assert _text(first) == "Hello you"
    second = desk.run(attempt())
    assert _text(second) == "Hello you"
    assert (second.id, second.created_at) == (first.id, first.created_at)
    assert second.usage == first.usage
    assert desk.num_runs == 1


def test_retry_joins_the_run_that_is_on_its_way(desk: Desk) -> None:
    """It hears what was said before it came, and then what both wait for."""
    engine = desk.service.engine
    engine.script = begins("Hello")
    first = desk.run(attempt(again=False))
    assert next(first) == Delta(0, "Hello")
    second = desk.run(attempt())
    first.close()
    reader = Background(lambda: _text(second))
    engine.generations[0].put(Delta(0, " you"))
    engine.generations[0].put(done())
    assert reader.wait() == "Hello you"
    assert desk.num_runs == 1
    assert engine.cancelled == []


def test_run_ends_when_nobody_reads_it_any_more(desk: Desk) -> None:
    """A client that goes away and will not come again frees its place."""
    engine = desk.service.engine
    engine.script = begins("Hello")
    run = desk.run(attempt(again=False))
    run.close()
    until(lambda: engine.cancelled)
    until(lambda: is_free(desk.service))


def test_client_that_gave_up_after_its_time_is_waited_for(desk: Desk) -> None:
    """Its retry comes within seconds: the answer is made on for it."""
    engine = desk.service.engine
    engine.script = begins("Hello")
    given_up = Attempt(owner="ann", key="k", digest=b"d", is_retry=False, gives_up_after_s=0.0)
    desk.run(given_up).close()
    again = desk.run(Attempt(owner="ann", key="k", digest=b"d", is_retry=True))
    engine.generations[0].put(done())
    assert _text(again) == "Hello"
    assert (desk.num_runs, engine.cancelled) == (1, [])


def test_first_attempt_begins_anew(desk: Desk) -> None:
    """The same question asked twice on purpose is answered twice."""
    _text(desk.run(attempt(again=False)))
    _text(desk.run(attempt(again=False)))
    assert desk.num_runs == 2


def test_another_owner_never_joins(desk: Desk) -> None:
    """An answer is of the key that asked for it."""
    _text(desk.run(attempt()))
    _text(desk.run(attempt(owner="bob")))
    assert desk.num_runs == 2


def test_key_of_another_request_is_refused(desk: Desk) -> None:
    """One key for two different requests is a mistake that must not be answered wrongly."""
    _text(desk.run(attempt()))
    with pytest.raises(InvalidField, match="another request"):
        desk.run(attempt(body="something else"))


def test_error_is_raised_for_each_and_not_kept(desk: Desk) -> None:
    """What failed is tried again by the retry."""
    with pytest.raises(UnknownModel):
        desk.retries.run(
            attempt(),
            never,
            lambda is_left: desk.service.completions.start(
                "ann", "hi", Options(model="nobody"), is_left
            ),
        )
    assert _text(desk.run(attempt())) == "Hello you"


def test_old_answer_is_forgotten(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some minutes the same request runs again."""
    monkeypatch.setattr(retries, "KEPT_S", -1.0)
    _text(desk.run(attempt()))
    _text(desk.run(attempt()))
    assert desk.num_runs == 2


def test_only_so_many_answers_are_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes first."""
    monkeypatch.setattr(retries, "MAX_KEPT", 2)
    for key in ("1", "2", "3", "3", "2", "1"):
        _text(desk.run(attempt(key=key)))
    assert desk.num_runs == 4


def test_reader_whose_client_goes_away_stops(desk: Desk) -> None:
    """The one that is gone raises, the other one reads on."""
    engine = desk.service.engine
    engine.script = says("a")
    stays = desk.run(attempt(again=False))
    gone = desk.run(attempt(), lambda: True)
    with pytest.raises(ClientGone):
        next(gone)
    assert _text(stays) == "a"
