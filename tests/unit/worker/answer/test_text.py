from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from llmd.worker.answer.text import StopFilter, TextDecoder

_stops = st.lists(st.text("abé\U0001f600", min_size=1, max_size=4), max_size=4)
_texts = st.text("abcé\U0001f600", max_size=24)


class TextStream:
    """Decodes bytes, and ends the text at a stop string."""

    def __init__(self, stop: list[str]) -> None:
        self._decoder = TextDecoder()
        self._stop = StopFilter(stop)

    @property
    def stopped(self) -> bool:
        return self._stop.stopped

    def push(self, piece: bytes) -> str:
        return self._stop.push(self._decoder.push(piece))

    def finish(self) -> str:
        return self._stop.push(self._decoder.finish()) + self._stop.finish()


def _read(chunks: list[bytes], stop: list[str]) -> tuple[str, bool]:
    stream = TextStream(stop)
    text = "".join(stream.push(chunk) for chunk in chunks)
    return text + stream.finish(), stream.stopped


def _cut(raw: bytes, cuts: set[int]) -> list[bytes]:
    ends = [*sorted(cuts & set(range(len(raw)))), len(raw)]
    return [raw[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def _expected(text: str, stop: list[str]) -> tuple[str, bool]:
    """Return the text up to the stop string that is complete first, and whether there is one."""
    for end in range(1, len(text) + 1):
        for begin in range(end):
            if text[begin:end] in stop:
                return text[:begin], True
    return text, False


@given(_texts, _stops, st.sets(st.integers(0, 100)))
@example(text="xabc", stop=["abc", "b"], cuts=set())
def test_chunks_of_an_answer_never_change_what_is_shown(
    text: str, stop: list[str], cuts: set[int]
) -> None:
    """However the bytes are split, the text ends before the stop string that is complete first."""
    assert _read(_cut(text.encode(), cuts), stop) == _expected(text, stop)


@given(st.binary(max_size=24), st.sets(st.integers(0, 24)))
def test_invalid_bytes_are_replaced_the_same_in_any_chunks(raw: bytes, cuts: set[int]) -> None:
    """Invalid bytes become U+FFFD, however they are split."""
    assert _read(_cut(raw, cuts), []) == (raw.decode("utf-8", "replace"), False)


@given(_texts, _stops, st.sets(st.integers(0, 100)))
def test_no_part_of_a_stop_string_is_shown_before_it_is_decided(
    text: str, stop: list[str], cuts: set[int]
) -> None:
    """The text shown so far is always a prefix of the whole text."""
    stream = TextStream(stop)
    shown = ""
    for chunk in _cut(text.encode(), cuts):
        shown += stream.push(chunk)
        assert _expected(text, stop)[0].startswith(shown)


def test_text_that_cannot_become_a_stop_string_is_not_held_back() -> None:
    """Only a suffix of the text that begins a stop string is held back."""
    stream = TextStream(["\nHuman:"])
    assert stream.push(b"hello\nHu") == "hello"
    assert stream.push(b"go") == "\nHugo"
    assert stream.push(b"\nHuman") == ""
    assert stream.finish() == "\nHuman"


def test_nothing_is_shown_after_a_stop_string() -> None:
    """Text after a stop string is dropped, in the same token or a later one."""
    stream = TextStream(["STOP"])
    assert stream.push(b"one STOP two") == "one "
    assert stream.stopped
    assert stream.push(b"three") == ""
    assert stream.finish() == ""


def test_empty_stop_string_stops_nothing() -> None:
    """An empty stop string is ignored."""
    assert _read([b"text"], [""]) == ("text", False)


def test_character_that_never_ends_is_replaced_at_the_end() -> None:
    """The first bytes of a character are held back, and become U+FFFD at the end."""
    stream = TextStream([])
    assert stream.push("é".encode()[:1]) == ""
    assert stream.finish() == "�"
