from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from llmd.worker.answer.reader import SPACE, JsonScanner, Reader, Waiting

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('a"\\{}[]é', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('"}a', max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


def _read(chunks: list[str], work: Waiting[object], reader: Reader) -> object:
    """Feed a generator piece by piece, and return its result."""
    for chunk in chunks:
        reader.feed(chunk)
        try:
            next(work)
        except StopIteration as stop:
            return stop.value
    reader.end()
    try:
        next(work)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the generator waits for more text at the end")


@given(
    st.lists(_json, max_size=3) | st.dictionaries(st.text('"a', max_size=2), _json) | st.text(),
    st.text('}]"\\x', max_size=4),
    st.lists(st.integers(1, 5)),
)
def test_end_of_a_json_value_is_found_in_any_pieces(
    value: object, rest: str, sizes: list[int]
) -> None:
    """Brackets and quotes within strings, and text behind the value, do not change its end."""
    text = json.dumps(value, ensure_ascii=False)
    scanner = JsonScanner()
    at = 0
    while not scanner.is_closed:
        size = sizes.pop() if sizes else 99
        at = scanner.find_end((text + rest)[: at + size], at)
    assert at == len(text)


def test_word_waits_only_while_it_can_still_follow() -> None:
    """A word is read across pieces, and waiting ends as soon as it cannot follow."""
    reader = Reader()
    assert _read(["<", "to", "ol>x"], reader.read_word("<tool>", "<b>"), reader) == "<tool>"
    assert reader.consumed == "<tool>"
    reader = Reader()
    assert _read(["<", "tx", "never"], reader.read_word("<tool>", "<b>"), reader) == ""
    assert reader.consumed == ""
    reader = Reader()
    assert _read(["<to"], reader.read_word("<tool>"), reader) == ""


def test_run_goes_on_over_pieces() -> None:
    """A run of white space is read across pieces, and the text behind it is not."""
    reader = Reader()
    assert _read([" ", "\n ", "  x"], reader.read_run(SPACE), reader) == " \n   "
    assert _read([], reader.peek(), reader) == "x"


def test_text_is_read_up_to_a_word() -> None:
    """A beginning of the word belongs to the text, and without the word there is no result."""
    reader = Reader()
    assert _read(["a<", "/b<</", "p>c"], reader.read_until("</p>"), reader) == ("a</b<", "</p>")
    reader = Reader()
    assert _read(["a</", "p"], reader.read_until("</p>"), reader) is None
    assert reader.is_at_end


def test_text_read_is_kept_until_it_is_discarded() -> None:
    """The consumed text is all that was read since the last `discard`."""
    reader = Reader()
    reader.feed("abc def")
    reader.take(re.compile("[a-c]+"))
    reader.take_one()
    assert reader.consumed == "abc "
    reader.discard()
    reader.take_one()
    reader.take_all()
    assert reader.consumed == "def"
    assert not reader.is_at_end
    reader.end()
    assert reader.is_at_end
