from __future__ import annotations

from pathlib import Path

import pytest

from llmd.engine.tuning import Speed, Tuned, Tuner, choose, thread_counts
from llmd.errors import ModelInvalid
from tests.support.supervisors import FAKE_WORKER, SETTINGS, make_model


def _speed(
    threads: int, *, batch: int = 256, read: float = 1, alone: float = 1, together: float = 1
) -> Speed:
    return Speed(threads=threads, batch=batch, read=read, alone=alone, together=together)


@pytest.mark.parametrize(
    ("num_cores", "counts"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 3, 4]), (16, [1, 8, 15, 16])]
)
def test_few_numbers_of_threads_are_tried(num_cores: int, counts: list[int]) -> None:
    """The numbers of threads are one, half of the cores, all but one, and all."""
    assert thread_counts(num_cores) == counts


def test_each_setting_is_measured_in_a_worker_of_its_own(tmp_path: Path) -> None:
    """Each setting is measured in tokens per second; the fake worker needs 10 ms for a token."""
    tuner = Tuner(make_model(tmp_path), SETTINGS, FAKE_WORKER)
    slow, fast = tuner.measure(1, 256), tuner.measure(4, 128)
    assert (slow.read, slow.alone, slow.together) == pytest.approx((100, 100, 800))
    assert (fast.read, fast.alone, fast.together) == pytest.approx((400, 200, 1600))
    assert (fast.threads, fast.batch) == (4, 128)


def test_model_that_cannot_run_raises_its_error(tmp_path: Path) -> None:
    """A model that cannot be loaded raises its error."""
    with pytest.raises(ModelInvalid, match="not a model that runs here"):
        Tuner(make_model(tmp_path, how="refuse"), SETTINGS, FAKE_WORKER).measure(1, 256)


def test_of_what_is_as_fast_the_fewest_threads_and_the_smallest_batch_are_taken() -> None:
    """Among equally fast settings, the cheapest one is chosen."""
    by_threads = [
        _speed(1, read=50, alone=98, together=60),
        _speed(2, read=99, alone=100, together=100),
        _speed(4, read=101, alone=60, together=99),
    ]
    by_batch = [
        _speed(2, batch=128, read=80),
        _speed(2, batch=256, read=99),
        _speed(2, batch=512, read=100),
    ]
    assert choose(by_threads, by_batch) == Tuned(threads=1, threads_batch=2, batch=256)


def test_reading_and_generating_for_several_both_count() -> None:
    """`threads_batch` depends on both prefill and generation for several requests."""
    by_threads = [_speed(2, read=100, together=100), _speed(4, read=130, together=60)]
    assert choose(by_threads, by_threads).threads_batch == 2
