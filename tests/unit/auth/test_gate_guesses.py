"""Guesses at keys, which cost little and make their sender wait."""

from __future__ import annotations

import pytest

from llmd.auth.secret import make
from llmd.errors import TooManyFailures, Unauthorized
from tests.support.fake_keys import ADDRESS, GateHarness

OTHER_ADDRESS = "198.51.100.9"


def test_repeated_wrong_key_is_refused_from_memory(harness: GateHarness) -> None:
    """A client that goes on with one wrong key costs one lookup a minute and never waits."""
    wrong = harness.guess(harness.add()[0])
    assert {harness.refused(wrong) for _ in range(100)} == {Unauthorized}
    assert harness.keys.calls == ["by_id"]
    assert harness.hasher.num_verified == 1
    harness.time_s += 60
    assert harness.refused(wrong) is Unauthorized
    assert harness.hasher.num_verified == 2


def test_unknown_id_costs_no_argon2(harness: GateHarness) -> None:
    """Keys that nobody made are refused by their id alone, and their sender waits after ten."""
    results = [harness.refused(make().text) for _ in range(200)]
    assert results == [Unauthorized] * 10 + [TooManyFailures] * 190
    assert len(harness.keys.calls) == 10
    assert harness.hasher.num_verified == 0


def test_guesses_at_one_key_wait_wherever_they_come_from(harness: GateHarness) -> None:
    """Five wrong secrets for one key in a minute, from five addresses, are all that is tried."""
    key_id, _ = harness.add()
    results = [harness.refused(harness.guess(key_id), f"192.0.2.{n}") for n in range(50)]
    assert results == [Unauthorized] * 5 + [TooManyFailures] * 45
    assert harness.hasher.num_verified == 5
    harness.time_s += 60
    assert harness.refused(harness.guess(key_id), OTHER_ADDRESS) is Unauthorized


def test_flood_does_not_touch_a_caller_who_is_in(harness: GateHarness) -> None:
    """Through 20,000 wrong keys from its own address and for its own id, a key in use works."""
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


def test_key_not_yet_known_waits_where_others_guessed(harness: GateHarness) -> None:
    """An address that guessed too often waits with good keys too, and is told for how long."""
    _, text = harness.add()
    for _ in range(10):
        harness.refused(make().text)
    with pytest.raises(TooManyFailures) as caught:
        harness.gate.check(text, ADDRESS)
    assert caught.value.retry_after_s == 60
    assert harness.gate.check(text, OTHER_ADDRESS) == harness.gate.check(text, ADDRESS)
