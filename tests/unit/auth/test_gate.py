from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.auth.gate import RECHECK_INTERVAL_S, Caller, KeyEnded
from llmd.auth.secret import digest, make
from llmd.errors import StoreUnavailable, Unauthorized
from tests.support.fake_keys import ADDRESS, FakeRow, GateHarness

SEED_KEY = "abcdefghij0123456789"


def test_valid_key_names_its_caller(harness: GateHarness) -> None:
    """A valid key returns the id, name and role of its row."""
    key_id, text = harness.add(name="bob", role="admin")
    assert harness.gate.check(text, ADDRESS) == Caller(id=key_id, name="bob", role="admin")


def test_seed_key_is_found_by_its_digest(harness: GateHarness) -> None:
    """A key of 20 characters from the seed project is still accepted."""
    harness.keys.rows["s0"] = FakeRow(id="s0", hash=harness.hasher.hash(SEED_KEY))
    harness.keys.digests[digest(SEED_KEY)] = "s0"
    for _ in range(2):
        assert harness.gate.check(SEED_KEY, ADDRESS).id == "s0"
    assert harness.hasher.num_verified == 1
    assert harness.refused(SEED_KEY[::-1]) is Unauthorized


def test_every_refusal_has_the_same_message(harness: GateHarness) -> None:
    """The message is the same for a missing, wrong, unknown, revoked or expired key."""
    wrong = harness.guess(harness.add()[0])
    cases = [
        None,
        "",
        "junk",
        make().text,
        wrong,
        harness.add(revoked_at=5)[1],
        harness.add(expires_at=5)[1],
    ]
    messages = set()
    for presented in cases:
        with pytest.raises(Unauthorized) as caught:
            harness.gate.check(presented, ADDRESS)
        messages.add(caught.value.message)
    assert len(messages) == 1


@settings(max_examples=60)
@given(presented=st.text(max_size=150).filter(lambda text: not text.isalnum()))
def test_junk_does_not_reach_the_store(presented: str) -> None:
    """Text that is not a key by form and CRC reaches neither the store nor Argon2."""
    harness = GateHarness()
    assert harness.refused(presented) is Unauthorized
    assert harness.keys.calls == []


@pytest.mark.parametrize(
    "presented",
    ["' OR 1=1--", "A" * 1_048_576, make().text[:-1] + "é"],
    ids=["injection", "flood", "near key"],
)
def test_hostile_text_does_not_reach_the_store(harness: GateHarness, presented: str) -> None:
    """Injections, floods and nearly right keys are refused before the store is asked."""
    assert harness.refused(presented) is Unauthorized
    assert harness.keys.calls == []


def test_key_in_use_is_verified_once(harness: GateHarness) -> None:
    """A key in use is verified once, and again only after a pause as long as the TTL."""
    _, text = harness.add()
    for _ in range(5):
        harness.gate.check(text, ADDRESS)
        harness.time_s += 500
    assert harness.hasher.num_verified == 1
    harness.time_s += 100
    harness.gate.check(text, ADDRESS)
    assert harness.hasher.num_verified == 2


@pytest.mark.parametrize("change", [{"revoked_at": 5}, {"expires_at": 1_800_000_999}])
def test_cached_key_is_refused_as_soon_as_its_row_says_so(
    harness: GateHarness, change: dict[str, int]
) -> None:
    """The row is read at every request, so no cache serves a revoked or expired key."""
    key_id, text = harness.add()
    harness.gate.check(text, ADDRESS)
    harness.keys.change(key_id, **change)
    assert harness.refused(text) is Unauthorized


def test_key_removed_from_the_store_is_refused(harness: GateHarness) -> None:
    """A cached key is refused once its row is gone."""
    key_id, text = harness.add()
    harness.gate.check(text, ADDRESS)
    del harness.keys.rows[key_id]
    assert harness.refused(text) is Unauthorized


def test_key_expires_on_its_second(harness: GateHarness) -> None:
    """A key is accepted before the second of expires_at, and refused from that second on."""
    _, text = harness.add(expires_at=1_800_001_010)
    harness.gate.check(text, ADDRESS)
    harness.time_s += 9.9
    harness.gate.check(text, ADDRESS)
    harness.time_s += 0.1
    assert harness.refused(text) is Unauthorized


def test_key_given_more_time_is_valid_at_once(harness: GateHarness) -> None:
    """An expired key whose end is moved is accepted at its next request."""
    key_id, text = harness.add()
    harness.gate.check(text, ADDRESS)
    harness.keys.change(key_id, expires_at=5)
    assert harness.refused(text) is Unauthorized
    harness.keys.change(key_id, expires_at=None)
    assert harness.gate.check(text, ADDRESS).id == key_id


def test_role_is_read_at_every_request(harness: GateHarness) -> None:
    """A key that loses its role has lost it at its next request."""
    key_id, text = harness.add(role="admin")
    harness.gate.check(text, ADDRESS)
    harness.keys.change(key_id, role="user")
    assert harness.gate.check(text, ADDRESS).role == "user"


def test_cached_key_is_refused_after_its_hash_is_replaced(harness: GateHarness) -> None:
    """When the hash of a row is replaced, the key that matched the old one is refused."""
    key_id, text = harness.add()
    harness.gate.check(text, ADDRESS)
    harness.keys.change(key_id, hash=harness.hasher.hash(harness.guess(key_id)))
    assert harness.refused(text) is Unauthorized


def test_use_is_recorded_once_a_minute(harness: GateHarness) -> None:
    """The last use is written at most once in 60 seconds."""
    key_id, text = harness.add()
    for _ in range(7):
        harness.gate.check(text, ADDRESS)
        harness.time_s += 10
    noted = [call for call in harness.keys.calls if call.startswith("touch")]
    assert noted == [f"touch {key_id} 1800001000", f"touch {key_id} 1800001060"]


def test_old_hash_is_renewed() -> None:
    """A key whose hash has other parameters gets a new hash, once, and stays valid."""
    harness = GateHarness("small")
    key_id, text = harness.add()
    old = harness.keys.rows[key_id].hash
    for _ in range(2):
        harness.gate.check(text, ADDRESS)
    assert harness.keys.rows[key_id].hash != old
    assert harness.hasher.verify(harness.keys.rows[key_id].hash, text)
    assert harness.keys.calls.count("rehash") == 1
    assert harness.hasher.num_verified == 2


def test_read_only_store_does_not_refuse_valid_keys() -> None:
    """A valid key is accepted even if its use or its new hash cannot be written."""
    harness = GateHarness("small")
    key_id, text = harness.add()
    harness.keys.is_read_only = True
    for _ in range(2):
        assert harness.gate.check(text, ADDRESS).id == key_id
        harness.time_s += 60
    assert harness.hasher.num_verified == 1


def test_error_of_the_store_is_raised(harness: GateHarness) -> None:
    """An error of the store is raised unchanged and never results in a caller."""
    _, text = harness.add()
    harness.gate.check(text, ADDRESS)

    def fail(key_id: str, /) -> FakeRow | None:
        message = "the database is locked"
        raise StoreUnavailable(message)

    harness.keys.by_id = fail  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        harness.gate.check(text, ADDRESS)


def test_keys_are_not_kept_in_memory(harness: GateHarness) -> None:
    """The gate remembers neither a key nor its digest."""
    _, text = harness.add()
    harness.gate.check(text, ADDRESS)
    harness.refused(make().text)
    for kept in (harness.gate._verified, harness.gate._refused, harness.gate._touched):
        assert text not in repr(kept._items)
        assert digest(text) not in repr(kept._items)


@pytest.mark.parametrize("changes", [{"revoked_at": 1}, {"expires_at": 1}])
def test_recheck_notices_the_end_of_a_key(harness: GateHarness, changes: dict[str, int]) -> None:
    """The end of a key is noticed within the interval, and so is its return."""
    key_id, _ = harness.add()
    harness.gate.recheck(key_id)
    harness.keys.change(key_id, **changes)
    harness.time_s += RECHECK_INTERVAL_S
    for _ in range(2):
        with pytest.raises(KeyEnded):
            harness.gate.recheck(key_id)
    harness.keys.change(key_id, revoked_at=None, expires_at=None)
    harness.time_s += RECHECK_INTERVAL_S
    harness.gate.recheck(key_id)


def test_recheck_notices_a_key_that_was_deleted(harness: GateHarness) -> None:
    """A key without a row has ended."""
    with pytest.raises(KeyEnded):
        harness.gate.recheck("gone")


def test_recheck_reads_the_row_once_for_many_requests(harness: GateHarness) -> None:
    """The row is read once in an interval, however many requests ask."""
    key_id, _ = harness.add()
    for _ in range(100):
        harness.gate.recheck(key_id)
    assert harness.keys.calls.count("by_id") == 1
    harness.time_s += RECHECK_INTERVAL_S
    harness.gate.recheck(key_id)
    assert harness.keys.calls.count("by_id") == 2


def test_recheck_ends_no_request_if_the_keys_cannot_be_read(harness: GateHarness) -> None:
    """An error of the store says nothing about the key."""

    def fail(key_id: str, /) -> FakeRow | None:
        message = "the database is locked"
        raise StoreUnavailable(message)

    harness.keys.by_id = fail  # type: ignore[method-assign]
    harness.gate.recheck("any")
