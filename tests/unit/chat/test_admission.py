"""Which requests generate, which ones wait, and which ones are refused."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from llmd.auth.gate import KeyEnded
from llmd.chat.admission import Admission, Ticket
from llmd.errors import Busy, ClientGone, Draining
from tests.support.service import Background, until


def never() -> bool:
    """Return False: the client stays connected."""
    return False


class Crowd:
    """Requests that enter one after another, in the order of the calls."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.served: list[str] = []
        self.tickets: dict[str, Ticket] = {}
        self.calls: dict[str, Background] = {}
        self.gone: set[str] = set()

    def enter(self, name: str, owner: str, session: str | None = None) -> Background:
        """Enter a request. Return once it is admitted, queued or refused."""

        def call() -> None:
            ticket = self.admission.enter(owner, session, lambda: name in self.gone)
            self.tickets[name] = ticket
            self.served.append(name)

        num_before = self.admission.num_queued + self.admission.num_active
        self.calls[name] = background = Background(call)
        until(
            lambda: (
                self.admission.num_queued + self.admission.num_active > num_before
                or not background.is_running
            )
        )
        return background

    def leave(self, name: str) -> None:
        """Release the ticket of a request once it is admitted."""
        until(lambda: name in self.tickets)
        self.tickets[name].release()

    def serve_all(self) -> list[str]:
        """Release each request as soon as it is admitted. Return the order of all."""
        left: list[str] = []
        while len(left) < len(self.calls):
            until(lambda: len(self.served) > len(left))
            left.append(self.served[len(left)])
            self.leave(left[-1])
        return self.served


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    """Provide requests for one stream with a queue of ten."""
    made = Crowd(Admission(1, 10))
    yield made
    made.gone |= set(made.calls)
    until(lambda: not any(call.is_running for call in made.calls.values()))


def test_no_more_than_max_streams_generate_at_once() -> None:
    """The third request waits until one of the first two leaves."""
    crowd = Crowd(Admission(2, 10))
    for name in ("1", "2", "3"):
        crowd.enter(name, name)
    assert (crowd.admission.num_active, crowd.admission.num_queued) == (2, 1)
    crowd.leave("2")
    crowd.calls["3"].wait()
    assert (crowd.admission.num_active, crowd.admission.num_queued) == (2, 0)


def test_a_full_queue_sends_the_next_away_with_a_time_to_come_back() -> None:
    """A request beyond the queue gets `Busy` at once and leaves no trace."""
    crowd = Crowd(Admission(1, 1))
    crowd.enter("1", "a")
    crowd.enter("2", "b")
    with pytest.raises(Busy) as refused:
        crowd.admission.enter("c", None, never)
    assert refused.value.retry_after_s > 0
    assert (crowd.admission.num_active, crowd.admission.num_queued) == (1, 1)
    crowd.leave("1")
    crowd.calls["2"].wait()
    crowd.leave("2")
    assert (crowd.admission.num_active, crowd.admission.num_queued) == (0, 0)


def test_with_no_queue_a_free_stream_is_still_given() -> None:
    """A `max_queue` of 0 refuses only requests that would have to wait."""
    admission = Admission(1, 0)
    ticket = admission.enter("a", None, never)
    with pytest.raises(Busy):
        admission.enter("a", None, never)
    ticket.release()
    admission.enter("a", None, never).release()


def test_owners_take_turns_in_the_queue(crowd: Crowd) -> None:
    """A single request does not have to wait for all requests of another owner."""
    for name, owner in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("a4", "a"), ("b1", "b")]:
        crowd.enter(name, owner)
    assert crowd.serve_all() == ["a1", "a2", "b1", "a3", "a4"]


def test_requests_of_one_owner_are_served_in_order(crowd: Crowd) -> None:
    """The requests of an owner are admitted in the order in which they came."""
    names = [str(number) for number in range(6)]
    for name in names:
        crowd.enter(name, "a")
    assert crowd.serve_all() == names


def test_one_session_has_one_request_at_a_time_and_in_order() -> None:
    """Requests of one session run one after another, even while streams are free."""
    crowd = Crowd(Admission(4, 10))
    for name in ("1", "2", "3"):
        crowd.enter(name, "a", "s")
    crowd.enter("other session", "a", "t")
    crowd.enter("other owner", "b", "s")
    crowd.enter("no session", "a")
    until(lambda: len(crowd.served) == 4)
    assert sorted(crowd.served) == ["1", "no session", "other owner", "other session"]
    assert (crowd.admission.num_active, crowd.admission.num_queued) == (4, 2)
    crowd.leave("1")
    until(lambda: "2" in crowd.tickets)
    assert "3" not in crowd.tickets
    crowd.leave("2")
    crowd.calls["3"].wait()


def test_a_request_behind_its_own_session_does_not_block_those_after_it() -> None:
    """A free stream goes to the first request whose session is not in use."""
    crowd = Crowd(Admission(2, 10))
    crowd.enter("1", "a", "s")
    crowd.enter("behind", "a", "s")
    crowd.enter("after", "a", "t").wait()
    assert "behind" not in crowd.tickets


def test_a_client_that_goes_away_while_it_waits_leaves_the_queue(crowd: Crowd) -> None:
    """A disconnected client leaves the queue, and the next request is admitted."""
    crowd.enter("1", "a")
    crowd.enter("2", "a")
    crowd.enter("3", "b")
    crowd.gone.add("2")
    with pytest.raises(ClientGone):
        crowd.calls["2"].wait()
    assert crowd.admission.num_queued == 1
    crowd.leave("1")
    crowd.calls["3"].wait()
    assert crowd.admission.num_active == 1


def test_draining_refuses_the_new_and_the_waiting_and_keeps_the_running(crowd: Crowd) -> None:
    """While draining, a free stream is not given to a waiting request."""
    crowd.enter("1", "a")
    crowd.enter("2", "a")
    crowd.admission.drain()
    crowd.leave("1")
    with pytest.raises(Draining) as refused:
        crowd.calls["2"].wait()
    assert refused.value.retry_after_s > 0
    with pytest.raises(Draining):
        crowd.admission.enter("b", None, never)
    assert crowd.admission.draining
    assert crowd.served == ["1"]


def test_waiting_until_idle_ends_when_the_last_has_left(crowd: Crowd) -> None:
    """`wait_idle` also returns when the last request was refused in the queue."""
    crowd.enter("1", "a")
    crowd.enter("2", "a")
    assert not crowd.admission.wait_idle(0.0)
    waiting = Background(lambda: crowd.admission.wait_idle(3600))
    crowd.admission.drain()
    crowd.leave("1")
    assert waiting.wait()


def test_only_expiring_ends_what_runs(crowd: Crowd) -> None:
    """Draining does not end running requests, but expiring does."""
    crowd.admission.drain()
    assert not crowd.admission.expired
    crowd.admission.expire()
    assert crowd.admission.expired


def test_larger_limits_serve_those_who_wait_at_once(crowd: Crowd) -> None:
    """Waiting requests are admitted as soon as the limits are raised."""
    crowd.enter("1", "a")
    crowd.enter("2", "a")
    crowd.admission.set_limits(2, 10)
    crowd.calls["2"].wait()


def test_smaller_limits_take_no_place_away() -> None:
    """Lower limits affect neither running nor waiting requests, only new ones."""
    crowd = Crowd(Admission(2, 2))
    for name in ("1", "2", "3"):
        crowd.enter(name, name)
    crowd.admission.set_limits(1, 0)
    assert (crowd.admission.num_active, crowd.admission.num_queued) == (2, 1)
    with pytest.raises(Busy):
        crowd.admission.enter("x", None, never)
    crowd.leave("1")
    assert (crowd.admission.num_active, crowd.admission.num_queued) == (1, 1)
    crowd.leave("2")
    crowd.calls["3"].wait()


def test_a_ticket_can_be_released_twice() -> None:
    """A second release does not free the stream of another request."""
    admission = Admission(1, 0)
    first = admission.enter("a", None, never)
    first.release()
    admission.enter("b", None, never)
    first.release()
    assert admission.num_active == 1


def test_no_place_is_lost_among_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """After many concurrent requests, some of which give up, every stream is free again."""
    monkeypatch.setattr("llmd.chat.admission.POLL_S", 0.001)
    admission = Admission(3, 1000)
    most, lock, active = [0], threading.Lock(), set[int]()
    in_session: dict[tuple[str, str], int] = {}
    wrong: list[str] = []

    def request(number: int, rand: random.Random) -> None:
        owner, session = rand.choice("abc"), rand.choice("xy")
        gives_up = rand.random() < 0.2
        try:
            ticket = admission.enter(owner, session, lambda: gives_up)
        except ClientGone:
            return
        with lock:
            active.add(number)
            most[0] = max(most[0], len(active))
            in_session[owner, session] = in_session.get((owner, session), 0) + 1
            if in_session[owner, session] > 1:
                wrong.append("two of one session at once")
        time.sleep(rand.random() * 0.002)
        with lock:
            active.discard(number)
            in_session[owner, session] -= 1
        ticket.release()

    def client(number: int) -> None:
        rand = random.Random(number)
        for index in range(15):
            request(number * 100 + index, rand)

    for background in [Background(partial(client, at)) for at in range(16)]:
        background.wait()
    assert not wrong
    assert most[0] == 3
    assert (admission.num_active, admission.num_queued) == (0, 0)
    assert admission.wait_idle(0)


def test_an_error_of_the_check_ends_the_wait(crowd: Crowd) -> None:
    """A queued request whose check raises an error leaves the queue, and the next one moves up."""
    crowd.enter("1", "1")

    def check() -> bool:
        raise KeyEnded

    with pytest.raises(KeyEnded):
        crowd.admission.enter("2", None, check)
    assert crowd.admission.num_queued == 0
    crowd.enter("3", "3")
    crowd.leave("1")
    crowd.leave("3")
    assert crowd.served == ["1", "3"]
