from __future__ import annotations

from llmd.worker.kv.ram import States
from llmd.worker.kv.reuse import Worth
from tests.unit.worker.kv.test_slots import LONG, House


def _kept(worth: Worth, times: int, session: str = "", owner: str = "ann") -> int:
    return sum(worth.is_kept(owner, session) for _ in range(times))


def test_what_nobody_asks_for_again_is_no_longer_kept() -> None:
    """A program of single questions pays for some tries, and for a sample from then on."""
    worth = Worth()
    assert _kept(worth, 32) == 32
    assert _kept(worth, 80) == 10
    assert not worth.is_wanted("ann", "")


def test_what_is_found_again_is_kept_on() -> None:
    """One of thirty-two is enough, and brings it back."""
    worth = Worth()
    _kept(worth, 40)
    worth.note_found("ann", 100, 120)
    assert worth.is_wanted("ann", "")
    assert _kept(worth, 24) == 24


def test_a_common_beginning_is_not_found_again() -> None:
    """Templates and instructions stand before every prompt of a program."""
    worth = Worth()
    _kept(worth, 32)
    worth.note_found("ann", 63, 63)
    worth.note_found("ann", 300, 700)
    assert not worth.is_wanted("ann", "")


def test_habits_are_those_of_one_owner() -> None:
    """And a session that has a name is kept whatever its owner does else."""
    worth = Worth()
    _kept(worth, 200)
    assert worth.is_wanted("bob", "")
    assert _kept(worth, 20, session="trip") == 20


def test_habits_change() -> None:
    """A long time of single questions does not count for ever."""
    worth = Worth()
    _kept(worth, 10_000)
    for _ in range(8):
        worth.note_found("ann", 100, 100)
    assert _kept(worth, 100) == 100


def test_slots_count_what_is_left_and_what_is_found() -> None:
    """Single questions stop being saved when they lose their slot; a conversation goes on warm."""
    house = House(num_slots=1)
    for number in range(60):
        house.run("ann", [number, *LONG], session="")
    assert len(house.states.states) == 32 + 4
    house.run("bob", [1, *LONG], session="")
    house.run("bob", [1, *LONG, 2], session="")
    assert house.states.worth.is_wanted("bob", "")


def test_states_without_use_do_not_go_to_the_disk() -> None:
    """It would be written for nothing, day and night."""
    written: list[str] = []

    class Disk:
        def add(self, owner: str, _session: str, _tokens: list[int], _data: bytes) -> None:
            written.append(owner)

    states = States(10, Disk())  # type: ignore[arg-type]
    for number in range(100):
        if states.worth.is_kept("ann", ""):
            states.add("ann", "", [number], lambda: b"12345678")
    # The last two of those that were tried were still in RAM then.
    assert len(written) == 30
    states.add("bob", "1", [1], lambda: b"12345678")
    states.add("bob", "1", [2], lambda: b"12345678")
    assert written[-1] == "bob"
