from __future__ import annotations

from collections.abc import Callable

from llmd.worker.kv.ram import State, States


def _bytes(count: int) -> Callable[[], bytes]:
    return lambda: bytes(count)


def _found(states: States, owner: str, tokens: list[int]) -> State:
    _, state = states.find(owner, tokens)
    assert state is not None
    return state


def test_find_gives_the_state_that_shares_most() -> None:
    """Of an owner's states the one with the longest shared beginning is taken."""
    states = States(100)
    states.add("ann", "1", [1, 2, 9, 9], _bytes(10))
    states.add("ann", "2", [1, 2, 3, 9], _bytes(10))
    states.add("ann", "3", [1, 9, 9, 9], _bytes(10))
    assert states.find("ann", [1, 2, 3, 4])[0] == 3
    assert _found(states, "ann", [1, 2, 3, 4]).session == "2"


def test_find_gives_nothing_that_shares_nothing() -> None:
    """Without a shared first token there is nothing to load."""
    states = States(100)
    states.add("ann", "1", [1, 2], _bytes(10))
    assert states.find("ann", [2, 1]) == (0, None)
    assert states.find("ann", []) == (0, None)


def test_find_never_gives_one_owner_the_state_of_another() -> None:
    """Even an equal prompt finds nothing of another owner."""
    states = States(100)
    states.add("ann", "1", [1, 2, 3], _bytes(10))
    assert states.find("bob", [1, 2, 3]) == (0, None)


def test_states_stay_within_their_bytes_and_the_longest_unused_go() -> None:
    """A new state pushes out those that nobody asked for longest; a hit makes one young."""
    states = States(30)
    for number in (1, 2, 3):
        states.add("ann", str(number), [number], _bytes(10))
    _found(states, "ann", [1])
    states.add("ann", "4", [4], _bytes(15))
    assert states.num_bytes == 25
    assert [states.find("ann", [number])[0] for number in (1, 2, 3, 4)] == [1, 0, 0, 1]


def test_state_larger_than_the_bound_pushes_out_nothing() -> None:
    """A state that can never fit is not kept, and those that fit stay."""
    states = States(30)
    states.add("ann", "1", [1], _bytes(10))
    states.add("ann", "2", [2], _bytes(31))
    assert states.num_bytes == 10
    assert states.find("ann", [1])[0] == 1
    assert states.find("ann", [2]) == (0, None)


def test_state_takes_the_place_of_those_it_continues() -> None:
    """A later turn's state replaces the earlier turn's of that owner, and no other."""
    states = States(100)
    states.add("ann", "1", [1, 2], _bytes(10))
    states.add("bob", "1", [1, 2], _bytes(10))
    states.add("ann", "2", [1, 3], _bytes(10))
    states.add("ann", "1", [1, 2, 3], _bytes(15))
    assert states.num_bytes == 35
    assert states.find("bob", [1, 2])[0] == 2
    assert states.find("ann", [1, 3])[0] == 2


def test_kept_tokens_do_not_change_with_the_list_they_came_from() -> None:
    """A state holds the tokens of its bytes, whatever happens to the slot's list."""
    states = States(100)
    tokens = [1, 2]
    states.add("ann", "1", tokens, _bytes(10))
    tokens.append(3)
    assert states.find("ann", [1, 2, 3])[0] == 2


def test_forget_drops_one_session_or_all_of_an_owner() -> None:
    """Forgetting gives the bytes back and leaves other sessions and owners alone."""
    states = States(100)
    for owner in ("ann", "bob"):
        for session in (1, 2, 3):
            states.add(owner, str(session), [session], _bytes(10))
    states.forget("ann", "1")
    assert [states.find("ann", [number])[0] for number in (1, 2, 3)] == [0, 1, 1]
    states.forget("ann", None)
    assert [states.find("ann", [number])[0] for number in (1, 2, 3)] == [0, 0, 0]
    assert [states.find("bob", [number])[0] for number in (1, 2, 3)] == [1, 1, 1]
    assert states.num_bytes == 30


def test_bound_of_zero_saves_nothing() -> None:
    """Without room the costly copy out of the KV memory is not even made."""
    calls: list[int] = []

    def save() -> bytes:
        calls.append(1)
        return b""

    States(0).add("ann", "1", [1], save)
    assert calls == []
