"""Whether what owners leave in KV memory is ever asked for again.

A person goes on with a conversation; a program that sorts ten thousand letters does not. To keep
what nobody will want takes time and memory from those who work, and wears out the disk.
"""

from __future__ import annotations

MIN_REUSED_TOKENS = 64
"""So many must be found again, and half of what was kept: less is how all prompts begin."""

_TRIES = 32
"""So many are kept before anything is concluded, and for each that was found again."""

_SAMPLE = 8
"""Of what nobody seems to want every eighth is kept all the same: habits change."""


class _Habit:
    """What one owner does."""

    def __init__(self) -> None:
        self.num_left = 0
        self.num_found = 0


class Worth:
    """The habits of all owners, by what was found again of what they left."""

    def __init__(self) -> None:
        self._habits: dict[str, _Habit] = {}

    def is_wanted(self, owner: str, session: str) -> bool:
        """Tell whether this may be asked for again. Where a session is named, it may."""
        habit = self._habits.get(owner)
        if session or habit is None:
            return True
        return habit.num_left < _TRIES * (1 + habit.num_found)

    def is_kept(self, owner: str, session: str) -> bool:
        """Tell whether to keep what is lost now, and count it."""
        if self.is_wanted(owner, session):
            is_kept = True
        else:
            is_kept = self._habits[owner].num_left % _SAMPLE == 0
        if not session:
            habit = self._habits.setdefault(owner, _Habit())
            habit.num_left += 1
            if habit.num_left >= 8 * _TRIES:
                # What was long ago counts for less.
                habit.num_left //= 2
                habit.num_found //= 2
        return is_kept

    def note_found(self, owner: str, num_found: int, num_held: int) -> None:
        """Note that a prompt goes on from `num_found` of the `num_held` tokens that were kept."""
        if num_found >= MIN_REUSED_TOKENS and 2 * num_found >= num_held:
            self._habits.setdefault(owner, _Habit()).num_found += 1
