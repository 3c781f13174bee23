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
from tests.support.retries_harness import RetriesHarness, attempt
from tests.support.service import Background, until


def _text(run: JoinedRun) -> str:
    text = "".join(piece.text for piece in run if isinstance(piece, Delta))
    run.close()
    assert run.outcome is not None
    assert run.outcome.text == text
    return text


def test_finished_answer_is_given_again(harness: RetriesHarness) -> None:
    """A retry gets every piece under the same ID, and the engine gets no other request."""
    first = harness.run(attempt(again=False))
    assert _text(first) == "Hello you"
    second = harness.run(attempt())
    assert _text(second) == "Hello you"
    assert (second.id, second.created_at) == (first.id, first.created_at)
    assert second.usage == first.usage
    assert harness.num_runs == 1


def test_retry_joins_the_run_that_is_on_its_way(harness: RetriesHarness) -> None:
    """A retry gets the pieces so far, and then the new ones like the first reader."""
    engine = harness.service.engine
    engine.script = begins("Hello")
    first = harness.run(attempt(again=False))
    assert next(first) == Delta(0, "Hello")
    second = harness.run(attempt())
    first.close()
    reader = Background(lambda: _text(second))
    engine.generations[0].put(Delta(0, " you"))
    engine.generations[0].put(done())
    assert reader.wait() == "Hello you"
    assert harness.num_runs == 1
    assert engine.cancelled == []


def test_run_ends_when_nobody_reads_it_any_more(harness: RetriesHarness) -> None:
    """If a client disconnects and will not retry, its run is cancelled."""
    engine = harness.service.engine
    engine.script = begins("Hello")
    run = harness.run(attempt(again=False))
    run.close()
    until(lambda: engine.cancelled)
    until(lambda: is_free(harness.service))


def test_client_that_gave_up_after_its_time_is_waited_for(harness: RetriesHarness) -> None:
    """If a client gave up after its time limit, the run goes on for its retry."""
    engine = harness.service.engine
    engine.script = begins("Hello")
    given_up = Attempt(owner="ann", key="k", digest=b"d", is_retry=False, gives_up_after_s=0.0)
    harness.run(given_up).close()
    again = harness.run(Attempt(owner="ann", key="k", digest=b"d", is_retry=True))
    engine.generations[0].put(done())
    assert _text(again) == "Hello"
    assert (harness.num_runs, engine.cancelled) == (1, [])


def test_first_attempt_begins_anew(harness: RetriesHarness) -> None:
    """A request that is not a retry starts a run of its own."""
    _text(harness.run(attempt(again=False)))
    _text(harness.run(attempt(again=False)))
    assert harness.num_runs == 2


def test_another_owner_never_joins(harness: RetriesHarness) -> None:
    """A retry never joins the run of another owner."""
    _text(harness.run(attempt()))
    _text(harness.run(attempt(owner="bob")))
    assert harness.num_runs == 2


def test_key_of_another_request_is_refused(harness: RetriesHarness) -> None:
    """A key that was used for a different request is refused."""
    _text(harness.run(attempt()))
    with pytest.raises(InvalidField, match="another request"):
        harness.run(attempt(body="something else"))


def test_error_is_raised_for_each_and_not_kept(harness: RetriesHarness) -> None:
    """A run that failed is not kept, so a retry starts a new one."""
    with pytest.raises(UnknownModel):
        harness.retries.run(
            attempt(),
            never,
            lambda is_left: harness.service.completions.start(
                "ann", "hi", Options(model="nobody"), is_left
            ),
        )
    assert _text(harness.run(attempt())) == "Hello you"


def test_old_answer_is_forgotten(harness: RetriesHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run cannot be joined any more when it ended too long ago."""
    monkeypatch.setattr(retries, "KEPT_S", -1.0)
    _text(harness.run(attempt()))
    _text(harness.run(attempt()))
    assert harness.num_runs == 2


def test_only_so_many_answers_are_kept(
    harness: RetriesHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the `MAX_KEPT` most recent runs can be joined."""
    monkeypatch.setattr(retries, "MAX_KEPT", 2)
    for key in ("1", "2", "3", "3", "2", "1"):
        _text(harness.run(attempt(key=key)))
    assert harness.num_runs == 4


def test_reader_whose_client_goes_away_stops(harness: RetriesHarness) -> None:
    """The reader whose client disconnects gets an error; the other one reads on."""
    engine = harness.service.engine
    engine.script = says("a")
    stays = harness.run(attempt(again=False))
    gone = harness.run(attempt(), lambda: True)
    with pytest.raises(ClientGone):
        next(gone)
    assert _text(stays) == "a"
