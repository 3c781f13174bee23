from __future__ import annotations

import pytest

from llmd.engine.mailbox import Mailbox
from tests.support.service import Background, until


class Ear:
    """A listener that takes small letters, unless it is told not to."""

    def __init__(self, mailbox: Mailbox[str]) -> None:
        self.heard: list[str] = []
        self.is_ready = True
        self.error: Exception | None = None
        mailbox.listen(self.hear)

    def hear(self, letter: str) -> bool:
        if self.error is not None:
            raise self.error
        if not letter.islower() or not self.is_ready:
            return False
        self.heard.append(letter)
        return True


@pytest.fixture
def mailbox() -> Mailbox[str]:
    """Give an empty one."""
    return Mailbox()


def _reader(mailbox: Mailbox[str]) -> Background:
    """Return a thread that waits for what is next."""
    reader = Background(lambda: mailbox.next(20))
    until(lambda: mailbox._is_awaited)
    return reader


def test_listener_saves_the_reader_from_what_it_can_handle(mailbox: Mailbox[str]) -> None:
    """The reader waits on, and gets what the listener leaves to it."""
    ear = Ear(mailbox)
    reader = _reader(mailbox)
    mailbox.put("a")
    mailbox.put("b")
    assert reader.is_running
    mailbox.put("END")
    assert reader.wait() == "END"
    assert ear.heard == ["a", "b"]


def test_listener_hears_nothing_while_the_reader_is_busy(mailbox: Mailbox[str]) -> None:
    """What comes then, and after it, is read in its order."""
    ear = Ear(mailbox)
    mailbox.put("a")
    mailbox.put("b")
    assert [mailbox.next(0), mailbox.next(0)] == ["a", "b"]
    assert ear.heard == []


def test_what_follows_something_left_to_the_reader_is_left_to_it_too(
    mailbox: Mailbox[str],
) -> None:
    """The listener must not overtake a reader that is being woken."""
    ear = Ear(mailbox)
    reader = _reader(mailbox)
    ear.is_ready = False
    mailbox.put("a")
    ear.is_ready = True
    mailbox.put("b")
    assert reader.wait() == "a"
    assert mailbox.next(20) == "b"
    assert ear.heard == []


def test_error_of_a_listener_is_raised_where_the_items_are_read(mailbox: Mailbox[str]) -> None:
    """The thread that puts in serves everybody; the listener is asked no more."""
    ear = Ear(mailbox)
    ear.error = ValueError("broken")
    reader = _reader(mailbox)
    mailbox.put("a")
    with pytest.raises(ValueError, match="broken"):
        reader.wait()
    reader = _reader(mailbox)
    mailbox.put("b")
    assert reader.wait() == "b"


def test_an_error_is_no_listeners_business(mailbox: Mailbox[str]) -> None:
    """The reader must hear of it."""
    ear = Ear(mailbox)
    reader = _reader(mailbox)
    mailbox.put(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        reader.wait()
    assert ear.heard == []


def test_nobody_listens_after_the_listener_was_taken_off(mailbox: Mailbox[str]) -> None:
    """As without one."""
    ear = Ear(mailbox)
    mailbox.listen(None)
    reader = _reader(mailbox)
    mailbox.put("a")
    assert reader.wait() == "a"
    assert ear.heard == []
