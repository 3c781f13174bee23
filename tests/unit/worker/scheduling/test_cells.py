"""One KV memory for all sequences: admission, and sequences that are set aside."""

from __future__ import annotations

from llmd.engine.protocol import Done, Started
from llmd.worker.scheduling.queue import MAX_PASSED_OVER
from tests.support.fake_backend import says
from tests.support.scheduler_harness import LONG_ANSWER, Harness

NUM_ANSWER = len(LONG_ANSWER)


def _with_second_set_aside() -> tuple[Harness, int, int]:
    """Run two answers with cells for one and a half, until the second is set aside."""
    harness = Harness(num_cells=3 * NUM_ANSWER // 2)
    first = harness.submit("a:", session="1")
    second = harness.submit("b:", session="2")
    while len(harness.scheduler._running) < 2:
        harness.step()
    while len(harness.scheduler._running) == 2:
        harness.step()
    return harness, first, second


def _started(harness: Harness, request_id: int) -> list[Started]:
    found = (event for event in harness.events if isinstance(event, Started))
    return [event for event in found if event.id == request_id]


def test_the_last_sequence_is_set_aside_and_answered_later() -> None:
    """A sequence that was set aside gets the same answer, and its start is reported once."""
    harness, first, second = _with_second_set_aside()
    assert [one.request.id for one in harness.scheduler._waiting] == [second]
    harness.run()
    assert harness.text(first) == harness.text(second) == LONG_ANSWER
    assert len(_started(harness, second)) == 1
    ends = [event.id for event in harness.events if isinstance(event, Done)]
    assert ends == [first, second]


def test_sequence_that_was_set_aside_comes_back_from_ram() -> None:
    """No token of a sequence that was set aside is computed again."""
    harness, _, second = _with_second_set_aside()
    harness.run()
    num_computed = sum(sum(step.values()) for step in harness.backend.steps)
    # The token that ends an answer goes into no step.
    assert num_computed == 2 * (2 + NUM_ANSWER)
    assert len(_started(harness, second)) == 1


def test_sequence_that_does_not_fit_is_not_passed_over_for_ever() -> None:
    """After `MAX_PASSED_OVER` shorter prompts, a long one gets the next free cells."""
    harness = Harness(num_cells=256, max_batch_tokens=256)
    harness.submit("a" * 120 + ":")
    harness.step()
    long = harness.submit("b" * 180 + ":", owner="bob")
    while not _started(harness, long):
        harness.submit("c:", owner="cyd", max_tokens=1)
        harness.step()
    order = [event.id for event in harness.events if isinstance(event, Started)]
    # The very first sequence ran already.
    assert order.index(long) - 1 == MAX_PASSED_OVER
    harness.run()
    assert harness.text(long) == LONG_ANSWER[: 256 - 181]


def test_idle_conversations_make_room_and_continue_from_ram() -> None:
    """The state of an idle conversation is saved to RAM when its cells are needed."""
    harness = Harness(next_token=says("ok"), num_cells=256, max_batch_tokens=256)
    harness.submit("a" * 150 + ":", session="1")
    harness.run()
    harness.submit("b" * 150 + ":", session="2", owner="bob")
    harness.run()
    assert len(harness.backend.resident[0]) + len(harness.backend.resident[1]) < 256
    again = harness.submit("a" * 150 + ":ok again:", session="1")
    harness.run()
    assert _started(harness, again)[0].num_cached_tokens >= 150


def test_sequence_that_was_set_aside_can_be_cancelled() -> None:
    """A sequence that was set aside and then cancelled ends once."""
    harness, first, second = _with_second_set_aside()
    harness.scheduler.cancel(second)
    harness.run()
    ends = [(event.id, event.finish_reason) for event in harness.events if isinstance(event, Done)]
    assert ends == [(second, "cancelled"), (first, "stop")]


def test_session_forgotten_while_set_aside_is_not_kept() -> None:
    """Neither the saved state of a forgotten session is kept, nor what it computes later."""
    harness, _, second = _with_second_set_aside()
    harness.scheduler.forget("ann", "2")
    harness.run()
    assert harness.text(second) == LONG_ANSWER
    assert [kept.session for kept in harness.scheduler.kept()] == ["1"]
