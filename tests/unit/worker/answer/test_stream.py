from __future__ import annotations

from llmd.engine.protocol import CallDelta, Delta, Reasoning
from llmd.worker.answer.stream import AnswerStream
from tests.support.parsing import CALL, parser_of
from tests.support.syntaxes import THINKING


def _answer(text: str, stop: list[str]) -> tuple[str, str, str, bool]:
    """Return (text, thought, arguments, stopped) of an answer that arrives byte by byte."""
    stream = AnswerStream(7, stop, parser_of(THINKING))
    events = [event for byte in text.encode() for event in stream.push(bytes([byte]), None)]
    events += stream.finish()
    assert stream.has_calls == any(isinstance(event, CallDelta) for event in events)
    return (
        "".join(event.text for event in events if isinstance(event, Delta)),
        "".join(event.text for event in events if isinstance(event, Reasoning)),
        "".join(event.arguments for event in events if isinstance(event, CallDelta)),
        stream.stopped,
    )


def test_stop_string_in_a_thought_or_a_call_does_not_stop_the_answer() -> None:
    """Stop strings are looked for in the text alone."""
    text, thought, arguments, stopped = _answer(f"<think>no city</think>Yes\n{CALL}", ["city"])
    assert (text, thought, stopped) == ("Yes", "no city", False)
    assert "city" in arguments


def test_stop_string_in_the_text_ends_the_answer() -> None:
    """Nothing behind a stop string is part of the answer, not even a call."""
    answer = _answer(f"<think>STOP</think>One STOP two\n{CALL}", ["STOP"])
    assert answer == ("One ", "STOP", "", True)


def test_beginning_of_a_stop_string_before_a_call_is_text() -> None:
    """A stop string does not reach across a call."""
    text, _, arguments, stopped = _answer(f"One ST{CALL}OP", ["STOP"])
    assert (text, stopped) == ("One STOP", False)
    assert arguments
