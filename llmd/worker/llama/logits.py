"""Read the logits of the last decode, and choose among the likeliest tokens of a row."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmd.errors import EngineFailed
from llmd.worker.llama.native import ShortCalls

Row = NDArray[np.float32]
"""One logit for each token of the vocabulary."""

_COLUMN_SIZE = 64
"""Number of logits of which `likeliest` takes the maximum."""

_MAX_VIEWS = 1024
"""Views of rows that are kept."""

_LOWEST = np.finfo(np.float32).min


class Logits:
    """The rows of logits of one context. llama.cpp sees what is written into a row."""

    def __init__(self, short: ShortCalls, context: Any, num_tokens: int) -> None:
        self._short = short
        self._context = context
        self._num_tokens = num_tokens
        # Making a view takes ten times as long as finding the maximum of the row.
        self._views: dict[int, Row] = {}

    def row(self, output: int) -> Row:
        """Return row `output` of the last decode. Raise `EngineFailed` if there is none."""
        address = self._short.get_logits_ith(self._context, output)
        if not address:
            raise EngineFailed(f"no logits in row {output} of the batch")
        view = self._views.get(address)
        if view is None:
            if len(self._views) >= _MAX_VIEWS:
                self._views.clear()
            view = np.ctypeslib.as_array((ctypes.c_float * self._num_tokens).from_address(address))
            self._views[address] = view
        return view


class CandidateArray:
    """A `llama_token_data_array` of the likeliest tokens, from which a chain of samplers chooses.

    llama.cpp itself would copy and sort the whole vocabulary for each token of each sequence.
    """

    def __init__(self, lib: Any, short: ShortCalls, num_tokens: int) -> None:
        self._short = short
        self._data = np.empty(
            num_tokens, np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        )
        self._array = lib.llama_token_data_array()
        self._array.data = self._data.ctypes.data_as(ctypes.POINTER(lib.llama_token_data))

    def choose(self, chain: Any, logits: Row, num_likeliest: int) -> int:
        """Return the token that a chain chooses whose first sampler keeps `num_likeliest`."""
        tokens = likeliest(logits, num_likeliest)
        num = len(tokens)
        self._data["id"][:num] = tokens
        self._data["logit"][:num] = logits[tokens]
        self._array.size, self._array.selected, self._array.sorted = num, -1, False
        self._short.sampler_apply(chain, ctypes.byref(self._array))
        return int(self._data["id"][self._array.selected])


def likeliest(logits: Row, num: int) -> NDArray[np.int64]:
    """Return the tokens with the `num` greatest logits and perhaps some more, in order of id.

    Logits of -inf are never among them. The lower bound is the `num`-th greatest of the maxima of
    columns: at least `num` logits reach it, one in each of these columns.
    """
    bound = _LOWEST
    num_columns = len(logits) // _COLUMN_SIZE
    if num <= num_columns:
        columns = logits[: num_columns * _COLUMN_SIZE].reshape(_COLUMN_SIZE, num_columns)
        bound = max(bound, np.partition(columns.max(axis=0), -num)[-num])
    return np.flatnonzero(logits >= bound)
