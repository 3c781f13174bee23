from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from llmd.worker.llama.logits import likeliest

ROWS = np_st.arrays(
    np.float32,
    st.integers(1, 700),
    elements=st.one_of(
        st.sampled_from([np.float32(-np.inf), np.float32(0), np.float32(1)]),
        st.floats(-100, 100, width=32),
    ),
)


@given(ROWS, st.integers(1, 60))
def test_all_of_the_likeliest_tokens_are_returned(logits: np.ndarray, num: int) -> None:
    """The result contains the likeliest tokens and perhaps others, in order of id."""
    found = likeliest(logits, num)
    possible = np.flatnonzero(logits > -np.inf)
    least = np.sort(logits[possible])[-num:].min(initial=np.inf)
    assert set(np.flatnonzero((logits >= least) & (logits > -np.inf))) <= set(found)
    assert set(found) <= set(possible)
    assert list(found) == sorted(found)
    assert len(found) >= min(num, len(possible))


def test_few_tokens_of_a_large_vocabulary_are_returned() -> None:
    """Few tokens of a large vocabulary are returned, so that sorting them is quick."""
    logits = np.random.default_rng(1).normal(0, 3, 49152).astype(np.float32)
    assert 40 <= len(likeliest(logits, 40)) < 400
