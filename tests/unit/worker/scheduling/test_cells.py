"""One KV memory for all sequences: who fits, who has to wait again, and that nothing is lost."""

from __future__ import annotations

from llmd.engine.protocol import Done, Started
from llmd.worker.scheduling.queue import MAX_PASSED_OVER
from tests.support.fake_backend import says
from tests.support.scheduler_harness import LONG_ANSWER, Harness

NUM_ANSWER = len(LONG_ANSWER)


def _crowded() -> tuple[Harness, int, int]:
    """Two answers ran, and had cells for one and a half: the second is set aside."""
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


def test_who_came_last_gives_its_cells_back_and_is_answered_all_the_same() -> None:
    """Nothing of the answer is said twice or left out, and one start is told."""
    harness, first, second = _crowded()
    assert [one.request.id for one in harness.scheduler._waiting] == [second]
    harness.run()
    assert harness.text(first) == harness.text(second) == LONG_ANSWER
    assert len(_started(harness, second)) == 1
    ends = [event.id for event in harness.events if isinstance(event, Done)]
    assert ends == [first, second]


def test_what_was_computed_comes_back_from_ram() -> None:
    """No token of who was set aside is computed again, except one for its logits."""
    harness, _, second = _crowded()
    harness.run()
    num_computed = sum(sum(step.values()) for step in harness.backend.steps)
    # The last token of each answer has no keys: it goes into no step.
    assert num_computed == 2 * (2 + NUM_ANSWER)
    assert len(_started(harness, second)) == 1


def test_who_does_not_fit_is_passed_over_so_often_and_not_more() -> None:
    """Short prompts may go first, but the cells that a long one waits for come free at last."""
    harness = Harness(num_cells=256, max_batch_tokens=256)
    harness.submit("a" * 120 + ":")
    harness.step()
    long = harness.submit("b" * 180 + ":", owner="bob")
    while not _started(harness, long):
        harness.submit("c:", owner="cyd", max_tokens=1)
        harness.step()
    order = [event.id for event in harness.events if isinstance(event, Started)]
    # The first of all ran already.
    assert order.index(long) - 1 == MAX_PASSED_OVER
    harness.run()
    assert harness.text(long) == LONG_ANSWER[: 256 - 181]


def test_idle_conversations_make_room_and_go_on_from_ram() -> None:
    """Their state is kept when their cells are taken."""
    harness = Harness(next_token=says("ok"), num_cells=256, max_batch_tokens=256)
    harness.submit("a" * 150 + ":", session="1")
    harness.run()
    harness.submit("b" * 150 + ":", session="2", owner="bob")
    harness.run()
    assert len(harness.backend.resident[0]) + len(harness.backend.resident[1]) < 256
    again = harness.submit("a" * 150 + ":ok again:", session="1")
    harness.run()
    assert _started(harness, again)[0].num_cached_tokens >= 150


def test_cancelling_who_was_set_aside_ends_it_once() -> None:
    """It waits as any other."""
    harness, first, second = _crowded()
    harness.scheduler.cancel(second)
    harness.run()
    ends = [(event.id, event.finish_reason) for event in harness.events if isinstance(event, Done)]
    assert ends == [(second, "cancelled"), (first, "stop")]


def test_what_is_forgotten_while_set_aside_is_kept_nowhere() -> None:
    """Neither its state, nor what it computes after that."""
    harness, _, second = _crowded()
    harness.scheduler.forget("ann", "2")
    harness.run()
    assert harness.text(second) == LONG_ANSWER
    assert [kept.session for kept in harness.scheduler.kept()] == ["1"]
