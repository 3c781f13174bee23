from __future__ import annotations

from llmd.worker.kv.conversation import Conversation
from llmd.worker.kv.ram import RamState, RamStates


def _add(
    states: RamStates, owner: str, session: str, tokens: list[int], num_bytes: int
) -> list[RamState]:
    return states.add(Conversation(owner, session), tokens, bytes(num_bytes))


def _found(states: RamStates, owner: str, tokens: list[int]) -> RamState:
    _, state = states.find(owner, tokens)
    assert state is not None
    return state


def test_find_gives_the_state_that_shares_most() -> None:
    """Of an owner's states the one with the longest shared beginning is taken."""
    states = RamStates(100)
    _add(states, "ann", "1", [1, 2, 9, 9], 10)
    _add(states, "ann", "2", [1, 2, 3, 9], 10)
    _add(states, "ann", "3", [1, 9, 9, 9], 10)
    assert states.find("ann", [1, 2, 3, 4])[0] == 3
    assert _found(states, "ann", [1, 2, 3, 4]).conversation.session == "2"


def test_find_gives_nothing_that_shares_nothing() -> None:
    """Without a shared first token there is nothing to load."""
    states = RamStates(100)
    _add(states, "ann", "1", [1, 2], 10)
    assert states.find("ann", [2, 1]) == (0, None)
    assert states.find("ann", []) == (0, None)


def test_find_never_gives_one_owner_the_state_of_another() -> None:
    """Even an equal prompt finds nothing of another owner."""
    states = RamStates(100)
    _add(states, "ann", "1", [1, 2, 3], 10)
    assert states.find("bob", [1, 2, 3]) == (0, None)


def test_states_stay_within_their_bytes_and_the_longest_unused_go() -> None:
    """A new state pushes out those that nobody asked for longest; a hit makes one young."""
    states = RamStates(30)
    for number in (1, 2, 3):
        _add(states, "ann", str(number), [number], 10)
    states.touch(_found(states, "ann", [1]))
    _add(states, "ann", "4", [4], 15)
    assert states.num_bytes == 25
    assert [states.find("ann", [number])[0] for number in (1, 2, 3, 4)] == [1, 0, 0, 1]


def test_state_larger_than_the_bound_pushes_out_nothing() -> None:
    """A state that can never fit is not kept, and those that fit stay."""
    states = RamStates(30)
    _add(states, "ann", "1", [1], 10)
    _add(states, "ann", "2", [2], 31)
    assert states.num_bytes == 10
    assert states.find("ann", [1])[0] == 1
    assert states.find("ann", [2]) == (0, None)


def test_state_takes_the_place_of_those_it_continues() -> None:
    """A later turn's state replaces the earlier turn's of that owner, and no other."""
    states = RamStates(100)
    _add(states, "ann", "1", [1, 2], 10)
    _add(states, "bob", "1", [1, 2], 10)
    _add(states, "ann", "2", [1, 3], 10)
    _add(states, "ann", "1", [1, 2, 3], 15)
    assert states.num_bytes == 35
    assert states.find("bob", [1, 2])[0] == 2
    assert states.find("ann", [1, 3])[0] == 2


def test_kept_tokens_do_not_change_with_the_list_they_came_from() -> None:
    """A state holds the tokens of its bytes, whatever happens to the slot's list."""
    states = RamStates(100)
    tokens = [1, 2]
    _add(states, "ann", "1", tokens, 10)
    tokens.append(3)
    assert states.find("ann", [1, 2, 3])[0] == 2


def test_forget_drops_one_session_or_all_of_an_owner() -> None:
    """Forgetting gives the bytes back and leaves other sessions and owners alone."""
    states = RamStates(100)
    for owner in ("ann", "bob"):
        for session in (1, 2, 3):
            _add(states, owner, str(session), [session], 10)
    states.forget("ann", "1")
    assert [states.find("ann", [number])[0] for number in (1, 2, 3)] == [0, 1, 1]
    states.forget("ann", None)
    assert [states.find("ann", [number])[0] for number in (1, 2, 3)] == [0, 0, 0]
    assert [states.find("bob", [number])[0] for number in (1, 2, 3)] == [1, 1, 1]
    assert states.num_bytes == 30
