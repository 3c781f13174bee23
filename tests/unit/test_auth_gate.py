from __future__ import annotations

import random
import threading
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.auth.gate import Caller, Gate
from llmd.auth.secret import Hasher, digest, make
from llmd.config import Auth
from llmd.errors import StoreUnavailable, TooManyFailures, Unauthorized

HOME = "192.0.2.1"
AWAY = "198.51.100.9"
SEED_KEY = "abcdefghij0123456789"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    hash: str
    name: str = "alice"
    role: str = "user"
    expires_at: int | None = None
    revoked_at: int | None = None


class FakeKeys:
    """Keep rows in memory, and count who asks for them."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.digests: dict[str, str] = {}
        self.calls: list[str] = []
        self.is_read_only = False
        # Where threads wait for each other when each asks for its first row.
        self.barrier: threading.Barrier | None = None
        self.waited: set[int] = set()

    def by_id(self, key_id: str, /) -> Row | None:
        self.calls.append("by_id")
        if self.barrier is not None and threading.get_ident() not in self.waited:
            self.waited.add(threading.get_ident())
            self.barrier.wait()
        return self.rows.get(key_id)

    def by_digest(self, key_digest: str, /) -> Row | None:
        self.calls.append("by_digest")
        return self.rows.get(self.digests.get(key_digest, ""))

    def touch(self, key_id: str, now: int, /) -> None:
        self.calls.append(f"touch {key_id} {now}")
        self._write()

    def rehash(self, key_id: str, hashed: str, /) -> None:
        self.calls.append("rehash")
        self._write()
        self.change(key_id, hash=hashed)

    def change(self, key_id: str, **changes: object) -> None:
        self.rows[key_id] = msgspec.structs.replace(self.rows[key_id], **changes)

    def _write(self) -> None:
        if self.is_read_only:
            message = "attempt to write a readonly database"
            raise StoreUnavailable(message)


class CountingHasher(Hasher):
    """Count the costly checks."""

    num_verified = 0

    def verify(self, hashed: str, text: str) -> bool:
        self.num_verified += 1
        return super().verify(hashed, text)


class House:
    """Hold a gate, its clocks and the keys behind it."""

    def __init__(self, parameters: str = "cheapest") -> None:
        self.keys = FakeKeys()
        self.hasher = CountingHasher(parameters)
        self.time_s = 1000.0
        self.gate = Gate(
            self.keys,
            self.hasher,
            settings=Auth(cache_ttl_s=600),
            clock=lambda: self.time_s,
            now=lambda: 1_800_000_000 + self.time_s,
        )

    def add(self, **changes: object) -> tuple[str, str]:
        """Store a new key; return its id and text."""
        key = make()
        self.keys.rows[key.id] = Row(id=key.id, hash=Hasher("cheapest").hash(key.text))
        self.keys.change(key.id, **changes)
        return key.id, key.text

    def guess(self, key_id: str) -> str:
        """Return a key of the right form for `key_id` with a wrong secret."""
        return make(FixedId(key_id)).text

    def refused(self, presented: str | None, address: str = HOME) -> type[Exception]:
        """Return the error with which the gate refuses."""
        with pytest.raises((Unauthorized, TooManyFailures)) as caught:
            self.gate.check(presented, address)
        return type(caught.value)


class FixedId:
    """Choose the letters of an id first, then any."""

    def __init__(self, key_id: str) -> None:
        self.letters = iter(key_id)

    def choice(self, seq: str, /) -> str:
        return next(self.letters, None) or random.choice(seq)


@pytest.fixture
def house() -> House:
    """Return an empty house."""
    return House()


def test_valid_key_names_its_caller(house: House) -> None:
    """A key in the store lets in as what its row says."""
    key_id, text = house.add(name="bob", role="admin")
    assert house.gate.check(text, HOME) == Caller(id=key_id, name="bob", role="admin")


def test_key_of_the_seed_is_found_by_its_digest(house: House) -> None:
    """Twenty letters from the seed project still open the door."""
    house.keys.rows["s0"] = Row(id="s0", hash=house.hasher.hash(SEED_KEY))
    house.keys.digests[digest(SEED_KEY)] = "s0"
    for _ in range(2):
        assert house.gate.check(SEED_KEY, HOME).id == "s0"
    assert house.hasher.num_verified == 1
    assert house.refused(SEED_KEY[::-1]) is Unauthorized


def test_every_refusal_has_the_same_words(house: House) -> None:
    """Nothing in the answer tells a missing, wrong, unknown, revoked or expired key apart."""
    wrong = house.guess(house.add()[0])
    cases = [
        None,
        "",
        "junk",
        make().text,
        wrong,
        house.add(revoked_at=5)[1],
        house.add(expires_at=5)[1],
    ]
    messages = set()
    for presented in cases:
        with pytest.raises(Unauthorized) as caught:
            house.gate.check(presented, HOME)
        messages.add(caught.value.message)
    assert len(messages) == 1


@settings(max_examples=60)
@given(presented=st.text(max_size=150).filter(lambda text: not text.isalnum()))
def test_junk_costs_no_look_into_the_store(presented: str) -> None:
    """Text that is not a key by form and CRC reaches neither store nor Argon2."""
    house = House()
    assert house.refused(presented) is Unauthorized
    assert house.keys.calls == []


@pytest.mark.parametrize(
    "presented",
    ["' OR 1=1--", "A" * 1_048_576, make().text[:-1] + "é"],
    ids=["injection", "flood", "near key"],
)
def test_hostile_text_costs_no_look_into_the_store(house: House, presented: str) -> None:
    """Injections, floods and near keys are refused before any statement is made."""
    assert house.refused(presented) is Unauthorized
    assert house.keys.calls == []


def test_verified_key_costs_no_second_argon2(house: House) -> None:
    """While a key is in use it is verified once; after a pause as long as the TTL, again."""
    _, text = house.add()
    for _ in range(5):
        house.gate.check(text, HOME)
        house.time_s += 500
    assert house.hasher.num_verified == 1
    house.time_s += 100
    house.gate.check(text, HOME)
    assert house.hasher.num_verified == 2


@pytest.mark.parametrize("change", [{"revoked_at": 5}, {"expires_at": 1_800_000_999}])
def test_cached_key_is_refused_as_soon_as_its_row_says_so(
    house: House, change: dict[str, int]
) -> None:
    """The row is read at every request: no cache serves a revoked or expired key."""
    key_id, text = house.add()
    house.gate.check(text, HOME)
    house.keys.change(key_id, **change)
    assert house.refused(text) is Unauthorized


def test_key_that_left_the_store_is_refused(house: House) -> None:
    """A row that is gone takes its cached key along."""
    key_id, text = house.add()
    house.gate.check(text, HOME)
    del house.keys.rows[key_id]
    assert house.refused(text) is Unauthorized


def test_key_expires_on_its_second(house: House) -> None:
    """A key is good until the second of expires_at and not in it."""
    _, text = house.add(expires_at=1_800_001_010)
    house.gate.check(text, HOME)
    house.time_s += 9.9
    house.gate.check(text, HOME)
    house.time_s += 0.1
    assert house.refused(text) is Unauthorized


def test_key_given_more_time_is_good_at_once(house: House) -> None:
    """A known key that expired and got a later end needs no waiting."""
    key_id, text = house.add()
    house.gate.check(text, HOME)
    house.keys.change(key_id, expires_at=5)
    assert house.refused(text) is Unauthorized
    house.keys.change(key_id, expires_at=None)
    assert house.gate.check(text, HOME).id == key_id


def test_role_is_read_at_every_request(house: House) -> None:
    """A key that loses its role has lost it at its next request."""
    key_id, text = house.add(role="admin")
    house.gate.check(text, HOME)
    house.keys.change(key_id, role="user")
    assert house.gate.check(text, HOME).role == "user"


def test_other_secret_under_the_same_id_ends_the_cached_key(house: House) -> None:
    """When the hash of a row is replaced, the key that fitted the old one is refused."""
    key_id, text = house.add()
    house.gate.check(text, HOME)
    house.keys.change(key_id, hash=house.hasher.hash(house.guess(key_id)))
    assert house.refused(text) is Unauthorized


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


def test_use_is_noted_once_a_minute(house: House) -> None:
    """The last use is written at most each 60 seconds."""
    key_id, text = house.add()
    for _ in range(7):
        house.gate.check(text, HOME)
        house.time_s += 10
    noted = [call for call in house.keys.calls if call.startswith("touch")]
    assert noted == [f"touch {key_id} 1800001000", f"touch {key_id} 1800001060"]


def test_old_hash_is_renewed() -> None:
    """A key whose hash has other parameters gets a new one, once, and stays good."""
    house = House("small")
    key_id, text = house.add()
    old = house.keys.rows[key_id].hash
    for _ in range(2):
        house.gate.check(text, HOME)
    assert house.keys.rows[key_id].hash != old
    assert house.hasher.verify(house.keys.rows[key_id].hash, text)
    assert house.keys.calls.count("rehash") == 1
    assert house.hasher.num_verified == 2


def test_disk_that_cannot_be_written_refuses_nobody() -> None:
    """Neither a failed note of the use nor a failed renewal keeps a valid key out."""
    house = House("small")
    key_id, text = house.add()
    house.keys.is_read_only = True
    for _ in range(2):
        assert house.gate.check(text, HOME).id == key_id
        house.time_s += 60
    assert house.hasher.num_verified == 1


def test_store_that_cannot_be_read_lets_nobody_in(house: House) -> None:
    """An error of the store is raised as it is: it never ends in a caller."""
    _, text = house.add()
    house.gate.check(text, HOME)

    def fail(key_id: str, /) -> Row | None:
        message = "the database is locked"
        raise StoreUnavailable(message)

    house.keys.by_id = fail  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        house.gate.check(text, HOME)


def run_together(house: House, count: int, work: Callable[[], None]) -> None:
    """Run `work` in so many threads that all have missed the caches before one goes on."""
    house.keys.barrier = threading.Barrier(count)
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_key_that_comes_many_times_at_once_is_verified_once(house: House) -> None:
    """Of requests that come together with one new key, the first pays Argon2 for all."""
    key_id, text = house.add()
    callers: list[str] = []
    run_together(house, 16, lambda: callers.append(house.gate.check(text, HOME).id))
    assert callers == [key_id] * 16
    assert house.hasher.num_verified == 1


def test_wrong_key_that_comes_many_times_at_once_is_verified_once(house: House) -> None:
    """Of requests that come together with one wrong key, the first pays for all and counts."""
    wrong = house.guess(house.add()[0])
    results: list[type[Exception]] = []
    run_together(house, 16, lambda: results.append(house.refused(wrong)))
    assert results == [Unauthorized] * 16
    assert house.hasher.num_verified == 1


def test_guesses_that_come_at_once_are_counted_one_by_one(house: House) -> None:
    """Twenty guesses at one moment cost no more Argon2 than twenty in a row."""
    key_id, _ = house.add()
    results: list[type[Exception]] = []
    run_together(house, 20, lambda: results.append(house.refused(house.guess(key_id))))
    assert results.count(TooManyFailures) == 15
    assert house.hasher.num_verified == 5


def test_keys_are_not_kept_in_memory(house: House) -> None:
    """What the gate remembers of a key is not the key."""
    _, text = house.add()
    house.gate.check(text, HOME)
    house.refused(make().text)
    for kept in (house.gate._verified, house.gate._refused, house.gate._touched):
        assert text not in repr(kept._items)
        assert digest(text) not in repr(kept._items)
