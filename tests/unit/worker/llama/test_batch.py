from __future__ import annotations

import pytest

from llmd.worker.llama.batch import Batch


def test_batch_lays_out_its_tokens_as_llama_cpp_reads_them() -> None:
    """Each row has a token, a position, a pointer to one sequence id, and an output flag."""
    batch = Batch(3)
    batch.add(70, 5, 1, output=False)
    batch.add(71, 6, 1, output=True)
    batch.add(72, 0, 2, output=True)
    arrays = batch.pointers()
    assert batch.num_tokens == 3
    assert arrays["token"][:3] == [70, 71, 72]
    assert arrays["pos"][:3] == [5, 6, 0]
    assert arrays["n_seq_id"][:3] == [1, 1, 1]
    assert [arrays["seq_id"][row][0] for row in range(3)] == [1, 1, 2]
    assert arrays["logits"][:3] == [0, 1, 1]


def test_batch_refuses_more_tokens_than_it_holds() -> None:
    """A token too many raises IndexError instead of writing beyond the array."""
    batch = Batch(1)
    batch.add(70, 0, 0, output=False)
    with pytest.raises(IndexError):
        batch.add(71, 1, 0, output=True)


def test_batch_is_filled_anew_from_its_first_row() -> None:
    """The pointers stay valid when the batch is refilled."""
    batch = Batch(2)
    arrays = batch.pointers()
    batch.add(70, 0, 0, output=True)
    batch.num_tokens = 0
    batch.add(80, 1, 1, output=False)
    assert (arrays["token"][0], arrays["pos"][0], arrays["logits"][0]) == (80, 1, 0)
    assert arrays["seq_id"][0][0] == 1
