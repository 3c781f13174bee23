"""Guesses at keys, which cost little and make their sender wait."""

from __future__ import annotations

import pytest

from llmd.auth.secret import make
from llmd.errors import TooManyFailures, Unauthorized
from tests.support.fake_keys import HOME, House

AWAY = "198.51.100.9"


def test_repeated_wrong_key_is_refused_from_memory(house: House) -> None:
    """A client that goes on with one wrong key costs one lookup a minute and never waits."""
    wrong = house.guess(house.add()[0])
    assert {house.refused(wrong) for _ in range(100)} == {Unauthorized}
    assert house.keys.calls == ["by_id"]
    assert house.hasher.num_verified == 1
    house.time_s += 60
    assert house.refused(wrong) is Unauthorized
    assert house.hasher.num_verified == 2


def test_unknown_id_costs_no_argon2(house: House) -> None:
    """Keys that nobody made are refused by their id alone, and their sender waits after ten."""
    results = [house.refused(make().text) for _ in range(200)]
    assert results == [Unauthorized] * 10 + [TooManyFailures] * 190
    assert len(house.keys.calls) == 10
    assert house.hasher.num_verified == 0


def test_guesses_at_one_key_wait_wherever_they_come_from(house: House) -> None:
    """Five wrong secrets for one key in a minute, from five addresses, are all that is tried."""
    key_id, _ = house.add()
    results = [house.refused(house.guess(key_id), f"192.0.2.{n}") for n in range(50)]
    assert results == [Unauthorized] * 5 + [TooManyFailures] * 45
    assert house.hasher.num_verified == 5
    house.time_s += 60
    assert house.refused(house.guess(key_id), AWAY) is Unauthorized


def test_flood_does_not_touch_a_caller_who_is_in(house: House) -> None:
    """Through 20,000 wrong keys from its own address and for its own id, a key in use works."""
    key_id, text = house.add()
    house.gate.check(text, HOME)
    other = make().text
    for number in range(20_000):
        house.refused(house.guess(key_id) if number < 30 else other)
        house.time_s += 0.01
        if number % 100 == 0:
            assert house.gate.check(text, HOME).id == key_id
            other = make().text
    assert house.hasher.num_verified < 30


def test_key_not_yet_known_waits_where_others_guessed(house: House) -> None:
    """An address that guessed too often waits with good keys too, and is told for how long."""
    _, text = house.add()
    for _ in range(10):
        house.refused(make().text)
    with pytest.raises(TooManyFailures) as caught:
        house.gate.check(text, HOME)
    assert caught.value.retry_after_s == 60
    assert house.gate.check(text, AWAY) == house.gate.check(text, HOME)
