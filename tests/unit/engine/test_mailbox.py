from __future__ import annotations

import pytest

from llmd.engine.mailbox import Mailbox
from tests.support.service import Background, until


class Listener:
    """A listener that handles small letters while it is ready."""

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
    """Return an empty mailbox."""
    return Mailbox()


def _reader(mailbox: Mailbox[str]) -> Background:
    """Return a thread that waits for the next item."""
    reader = Background(lambda: mailbox.next(20))
    until(lambda: mailbox._is_awaited)
    return reader


def test_listener_saves_the_reader_from_what_it_can_handle(mailbox: Mailbox[str]) -> None:
    """Items that the listener handles do not wake the reader."""
    listener = Listener(mailbox)
    reader = _reader(mailbox)
    mailbox.put("a")
    mailbox.put("b")
    assert reader.is_running
    mailbox.put("END")
    assert reader.wait() == "END"
    assert listener.heard == ["a", "b"]


def test_listener_hears_nothing_while_the_reader_is_busy(mailbox: Mailbox[str]) -> None:
    """While the reader does not wait, all items are left to it, in order."""
    listener = Listener(mailbox)
    mailbox.put("a")
    mailbox.put("b")
    assert [mailbox.next(0), mailbox.next(0)] == ["a", "b"]
    assert listener.heard == []


def test_what_follows_something_left_to_the_reader_is_left_to_it_too(
    mailbox: Mailbox[str],
) -> None:
    """After an item for the reader, later ones are left to it too, so that order is kept."""
    listener = Listener(mailbox)
    reader = _reader(mailbox)
    listener.is_ready = False
    mailbox.put("a")
    listener.is_ready = True
    mailbox.put("b")
    assert reader.wait() == "a"
    assert mailbox.next(20) == "b"
    assert listener.heard == []


def test_error_of_a_listener_is_raised_where_the_items_are_read(mailbox: Mailbox[str]) -> None:
    """An error of the listener is raised in the reader, and the listener is removed."""
    listener = Listener(mailbox)
    listener.error = ValueError("broken")
    reader = _reader(mailbox)
    mailbox.put("a")
    with pytest.raises(ValueError, match="broken"):
        reader.wait()
    reader = _reader(mailbox)
    mailbox.put("b")
    assert reader.wait() == "b"


def test_an_error_is_left_to_the_reader(mailbox: Mailbox[str]) -> None:
    """An error is always passed to the reader."""
    listener = Listener(mailbox)
    reader = _reader(mailbox)
    mailbox.put(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        reader.wait()
    assert listener.heard == []


def test_a_removed_listener_is_not_called(mailbox: Mailbox[str]) -> None:
    """After the listener was removed, all items are passed to the reader."""
    listener = Listener(mailbox)
    mailbox.listen(None)
    reader = _reader(mailbox)
    mailbox.put("a")
    assert reader.wait() == "a"
    assert listener.heard == []
