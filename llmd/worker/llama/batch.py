"""The arrays of a `llama_batch`, allocated once and refilled for each step."""

from __future__ import annotations

import ctypes
from typing import Any


class Batch:
    """A batch of up to `max_tokens` tokens, each of one sequence."""

    def __init__(self, max_tokens: int) -> None:
        self._tokens = (ctypes.c_int32 * max_tokens)()
        self._positions = (ctypes.c_int32 * max_tokens)()
        self._num_slots = (ctypes.c_int32 * max_tokens)(*[1] * max_tokens)
        self._slots = (ctypes.c_int32 * max_tokens)()
        self._outputs = (ctypes.c_int8 * max_tokens)()
        pointer = ctypes.POINTER(ctypes.c_int32)
        self._slot_pointers = (pointer * max_tokens)(
            *[
                ctypes.cast(ctypes.byref(self._slots, 4 * index), pointer)
                for index in range(max_tokens)
            ]
        )
        self.num_tokens = 0

    def add(self, token: int, position: int, slot: int, *, output: bool) -> None:
        """Append a token. Raise IndexError beyond `max_tokens`."""
        index = self.num_tokens
        self._tokens[index] = token
        self._positions[index] = position
        self._slots[index] = slot
        self._outputs[index] = output
        self.num_tokens = index + 1

    def pointers(self) -> dict[str, Any]:
        """Return the fields of a `llama_batch` that points to the arrays."""
        int32, int8 = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_int8)
        return {
            "n_tokens": 0,
            "token": ctypes.cast(self._tokens, int32),
            "embd": None,
            "pos": ctypes.cast(self._positions, int32),
            "n_seq_id": ctypes.cast(self._num_slots, int32),
            "seq_id": ctypes.cast(self._slot_pointers, ctypes.POINTER(int32)),
            "logits": ctypes.cast(self._outputs, int8),
        }
