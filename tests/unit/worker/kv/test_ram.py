"""KV states in RAM."""

from __future__ import annotations

from llmd.worker.kv.conversation import Conversation
from llmd.worker.kv.ram import RamState, RamStates
from llmd.worker.kv.reuse_rule import Reuse, ReuseRule
from llmd.worker.kv.saved_state import SavedState

RULE = ReuseRule(can_truncate=True, window=0)


def _add(
    states: RamStates, owner: str, session: str, tokens: list[int], num_bytes: int
) -> list[RamState]:
    return states.add(Conversation(owner, session), tokens, SavedState(bytes(num_bytes)))


def _found(states: RamStates, owner: str, tokens: list[int]) -> RamState:
    _, state = states.find(owner, tokens, RULE)
    assert state is not None
    return state


def test_find_returns_the_state_with_the_longest_common_prefix() -> None:
    """Of an owner's states, `find` returns the one with the longest common prefix."""
    states = RamStates(100)
    _add(states, "ann", "1", [1, 2, 9, 9], 10)
    _add(states, "ann", "2", [1, 2, 3, 9], 10)
    _add(states, "ann", "3", [1, 9, 9, 9], 10)
    assert states.find("ann", [1, 2, 3, 4], RULE)[0].num_tokens == 3
    assert _found(states, "ann", [1, 2, 3, 4]).conversation.session == "2"


def test_find_returns_none_without_a_common_prefix() -> None:
    """A state with another first token is not found."""
    states = RamStates(100)
    _add(states, "ann", "1", [1, 2], 10)
    assert states.find("ann", [2, 1], RULE) == (Reuse(0), None)
    assert states.find("ann", [], RULE) == (Reuse(0), None)


def test_find_never_returns_the_state_of_another_owner() -> None:
    """Even an equal prompt does not find the state of another owner."""
    states = RamStates(100)
    _add(states, "ann", "1", [1, 2, 3], 10)
    assert states.find("bob", [1, 2, 3], RULE) == (Reuse(0), None)


def test_the_least_recently_used_states_are_evicted() -> None:
    """A new state evicts the least recently used ones, and `touch` counts as use."""
    states = RamStates(30)
    for number in (1, 2, 3):
        _add(states, "ann", str(number), [number], 10)
    states.touch(_found(states, "ann", [1]))
    _add(states, "ann", "4", [4], 15)
    assert states.num_bytes == 25
    assert [states.find("ann", [number], RULE)[0].num_tokens for number in (1, 2, 3, 4)] == [
        1,
        0,
        0,
        1,
    ]


def test_state_larger_than_the_limit_evicts_nothing() -> None:
    """A state that can never fit is not kept, and the others stay."""
    states = RamStates(30)
    _add(states, "ann", "1", [1], 10)
    _add(states, "ann", "2", [2], 31)
    assert states.num_bytes == 10
    assert states.find("ann", [1], RULE)[0].num_tokens == 1
    assert states.find("ann", [2], RULE) == (Reuse(0), None)


def test_state_replaces_those_that_it_continues() -> None:
    """The state of a later turn replaces the state of the earlier turn, and no other."""
    states = RamStates(100)
    _add(states, "ann", "1", [1, 2], 10)
    _add(states, "bob", "1", [1, 2], 10)
    _add(states, "ann", "2", [1, 3], 10)
    _add(states, "ann", "1", [1, 2, 3], 15)
    assert states.num_bytes == 35
    assert states.find("bob", [1, 2], RULE)[0].num_tokens == 2
    assert states.find("ann", [1, 3], RULE)[0].num_tokens == 2


def test_kept_tokens_do_not_change_with_the_list_that_was_passed() -> None:
    """A state copies the list of its tokens, since the slot's list changes later."""
    states = RamStates(100)
    tokens = [1, 2]
    _add(states, "ann", "1", tokens, 10)
    tokens.append(3)
    assert states.find("ann", [1, 2, 3], RULE)[0].num_tokens == 2


def test_forget_drops_one_session_or_all_of_an_owner() -> None:
    """Forgetting frees the bytes of the states, and keeps those of other sessions and owners."""
    states = RamStates(100)
    for owner in ("ann", "bob"):
        for session in (1, 2, 3):
            _add(states, owner, str(session), [session], 10)
    states.forget("ann", "1")
    assert [states.find("ann", [number], RULE)[0].num_tokens for number in (1, 2, 3)] == [0, 1, 1]
    states.forget("ann", None)
    assert [states.find("ann", [number], RULE)[0].num_tokens for number in (1, 2, 3)] == [0, 0, 0]
    assert [states.find("bob", [number], RULE)[0].num_tokens for number in (1, 2, 3)] == [1, 1, 1]
    assert states.num_bytes == 30
