from __future__ import annotations

import pytest

from llmd.engine.mailbox import Mailbox
from tests.support.service import Background


@pytest.fixture
def mailbox() -> Mailbox[str]:
    """Return an empty mailbox."""
    return Mailbox()


def test_items_are_read_in_their_order(mailbox: Mailbox[str]) -> None:
    """Items come out as they were put in, and None when there are no more."""
    mailbox.put("a")
    mailbox.put("b")
    assert [mailbox.next(0), mailbox.next(0), mailbox.next(0)] == ["a", "b", None]


def test_reader_waits_for_an_item(mailbox: Mailbox[str]) -> None:
    """A reader that finds nothing gets the next item put in within its time."""
    reader = Background(lambda: mailbox.next(20))
    mailbox.put("a")
    assert reader.wait() == "a"


def test_error_is_raised_where_it_is_read(mailbox: Mailbox[str]) -> None:
    """An error keeps its place among the items, and is raised in the reader."""
    mailbox.put("a")
    mailbox.put(OSError("gone"))
    assert mailbox.next(0) == "a"
    with pytest.raises(OSError, match="gone"):
        mailbox.next(0)
