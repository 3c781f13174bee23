"""Which of a session's turns go into the prompt."""

from __future__ import annotations


def num_kept(num_turns: int, max_turns: int) -> int:
    """Return how many of the last turns to keep: at most `max_turns`.

    The oldest go in blocks of half the window and more, not one by one: for some turns the prompt
    then begins as before, and the engine reuses what it has computed of it.
    """
    excess = num_turns - max_turns
    if excess <= 0:
        return num_turns
    block = max(1, -(-max_turns // 2))
    num_dropped = -(-excess // block) * block
    return max(0, num_turns - num_dropped)
