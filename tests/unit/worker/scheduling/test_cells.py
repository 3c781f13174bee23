"""One KV memory for all sequences: who fits, who has to wait again, and that nothing is lost."""

from __future__ import annotations

from llmd.engine.protocol import Done, Started
from llmd.worker.scheduling.queue import MAX_WAITS
from tests.support.fake_backend import says
from tests.support.scheduler_harness import LONG_ANSWER, House

NUM_ANSWER = len(LONG_ANSWER)


def _crowded() -> tuple[House, int, int]:
    """Two answers ran, and had cells for one and a half: the second is set aside."""
    house = House(num_cells=3 * NUM_ANSWER // 2)
    first = house.submit("a:", session="1")
    second = house.submit("b:", session="2")
    while len(house.scheduler._running) < 2:
        house.step()
    while len(house.scheduler._running) == 2:
        house.step()
    return house, first, second


def _started(house: House, request_id: int) -> list[Started]:
    found = (event for event in house.events if isinstance(event, Started))
    return [event for event in found if event.id == request_id]


def test_who_came_last_gives_its_cells_back_and_is_answered_all_the_same() -> None:
    """Nothing of the answer is said twice or left out, and one start is told."""
    house, first, second = _crowded()
    assert [one.request.id for one in house.scheduler._waiting] == [second]
    house.run()
    assert house.text(first) == house.text(second) == LONG_ANSWER
    assert len(_started(house, second)) == 1
    ends = [event.id for event in house.events if isinstance(event, Done)]
    assert ends == [first, second]


def test_what_was_computed_comes_back_from_ram() -> None:
    """No token of who was set aside is computed again, except one for its logits."""
    house, _, second = _crowded()
    house.run()
    num_computed = sum(sum(step.values()) for step in house.backend.steps)
    # The last token of each answer has no keys: it goes into no step.
    assert num_computed == 2 * (2 + NUM_ANSWER)
    assert len(_started(house, second)) == 1


def test_who_does_not_fit_is_passed_over_so_often_and_not_more() -> None:
    """Short prompts may go first, but the cells that a long one waits for come free at last."""
    house = House(num_cells=256, max_batch_tokens=256)
    house.submit("a" * 120 + ":")
    house.step()
    long = house.submit("b" * 180 + ":", owner="bob")
    while not _started(house, long):
        house.submit("c:", owner="cyd", max_tokens=1)
        house.step()
    order = [event.id for event in house.events if isinstance(event, Started)]
    # The first of all ran already.
    assert order.index(long) - 1 == MAX_WAITS
    house.run()
    assert house.text(long) == LONG_ANSWER[: 256 - 181]


def test_idle_conversations_make_room_and_go_on_from_ram() -> None:
    """Their state is kept when their cells are taken."""
    house = House(next_token=says("ok"), num_cells=256, max_batch_tokens=256)
    house.submit("a" * 150 + ":", session="1")
    house.run()
    house.submit("b" * 150 + ":", session="2", owner="bob")
    house.run()
    assert len(house.backend.resident[0]) + len(house.backend.resident[1]) < 256
    again = house.submit("a" * 150 + ":ok again:", session="1")
    house.run()
    assert _started(house, again)[0].num_cached_tokens >= 150


def test_cancelling_who_was_set_aside_ends_it_once() -> None:
    """It waits as any other."""
    house, first, second = _crowded()
    house.scheduler.cancel(second)
    house.run()
    ends = [(event.id, event.finish_reason) for event in house.events if isinstance(event, Done)]
    assert ends == [(second, "cancelled"), (first, "stop")]


def test_what_is_forgotten_while_set_aside_is_kept_nowhere() -> None:
    """Neither its state, nor what it computes after that."""
    house, _, second = _crowded()
    house.scheduler.forget("ann", "2")
    house.run()
    assert house.text(second) == LONG_ANSWER
    assert [kept.session for kept in house.scheduler.kept()] == ["1"]
