"""Guesses at keys cost little, and make their sender wait."""

from __future__ import annotations

import pytest

from llmd.auth.secret import make
from llmd.errors import TooManyFailures, Unauthorized
from tests.support.fake_keys import ADDRESS, GateHarness

OTHER_ADDRESS = "198.51.100.9"


def test_repeated_wrong_key_is_refused_from_memory(harness: GateHarness) -> None:
    """A client that repeats one wrong key costs one lookup a minute and never has to wait."""
    wrong = harness.guess(harness.add()[0])
    assert {harness.refused(wrong) for _ in range(100)} == {Unauthorized}
    assert harness.keys.calls == ["by_id"]
    assert harness.hasher.num_verified == 1
    harness.time_s += 60
    assert harness.refused(wrong) is Unauthorized
    assert harness.hasher.num_verified == 2


def test_unknown_id_costs_no_argon2(harness: GateHarness) -> None:
    """Keys with unknown ids cost no Argon2, and their sender must wait after ten of them."""
    results = [harness.refused(make().text) for _ in range(200)]
    assert results == [Unauthorized] * 10 + [TooManyFailures] * 190
    assert len(harness.keys.calls) == 10
    assert harness.hasher.num_verified == 0


def test_guesses_at_one_key_are_limited_over_all_addresses(harness: GateHarness) -> None:
    """At most five wrong secrets a minute are verified for one key, from any addresses."""
    key_id, _ = harness.add()
    results = [harness.refused(harness.guess(key_id), f"192.0.2.{n}") for n in range(50)]
    assert results == [Unauthorized] * 5 + [TooManyFailures] * 45
    assert harness.hasher.num_verified == 5
    harness.time_s += 60
    assert harness.refused(harness.guess(key_id), OTHER_ADDRESS) is Unauthorized


def test_flood_does_not_affect_a_key_in_use(harness: GateHarness) -> None:
    """A key in use works through 20,000 wrong keys from its own address and for its own id."""
    key_id, text = harness.add()
    harness.gate.check(text, ADDRESS)
    other = make().text
    for number in range(20_000):
        harness.refused(harness.guess(key_id) if number < 30 else other)
        harness.time_s += 0.01
        if number % 100 == 0:
            assert harness.gate.check(text, ADDRESS).id == key_id
            other = make().text
    assert harness.hasher.num_verified < 30


def test_unverified_key_must_wait_after_wrong_keys_from_its_address(harness: GateHarness) -> None:
    """An address with too many wrong keys must wait with a valid key too, and learns how long."""
    _, text = harness.add()
    for _ in range(10):
        harness.refused(make().text)
    with pytest.raises(TooManyFailures) as caught:
        harness.gate.check(text, ADDRESS)
    assert caught.value.retry_after_s == 60
    assert harness.gate.check(text, OTHER_ADDRESS) == harness.gate.check(text, ADDRESS)
