"""Grammars are compiled in a thread of their own, while other answers continue."""

from __future__ import annotations

import threading

import msgspec
import pytest

from llmd.engine.protocol import (
    Cancel,
    ChatPrompt,
    Delta,
    Done,
    Forget,
    Grammar,
    JsonSchema,
    Message,
    Part,
    Refused,
    Started,
    Submit,
    TextPrompt,
    Tool,
    Tools,
)
from tests.support.dispatch_harness import AnyMatcher, Harness, submit


@pytest.fixture
def harness() -> Harness:
    """Return a harness."""
    return Harness()


def _with_tools(request_id: int) -> Submit:
    tools = Tools(tools=[Tool(name="f")])
    prompt = ChatPrompt([Message(role="user", content="hi")], tools)
    return msgspec.structs.replace(submit(request_id), prompt=prompt)


def _end(harness: Harness, request_id: int) -> Done:
    last = harness.events_of(request_id)[-1]
    assert isinstance(last, Done)
    return last


@pytest.mark.parametrize(
    "request_", [submit(1, JsonSchema("{}")), submit(1, Grammar("good")), _with_tools(1)]
)
def test_only_an_answer_with_a_grammar_waits_for_its_compilation(
    harness: Harness, request_: Submit
) -> None:
    """A grammar is compiled in a thread of its own, while the main thread decodes other answers."""
    harness.backend.gate.clear()
    harness.handle(request_)
    assert not harness.dispatcher.has_work
    harness.handle(submit(2))
    harness.run()
    assert harness.text(2) == "yes"
    assert harness.events_of(1) == []
    harness.backend.gate.set()
    harness.take_compiled()
    harness.run()
    assert harness.text(1) == "yes"
    assert _end(harness, 1).finish_reason == "stop"
    assert [type(matcher) for matcher in harness.backend.matchers] == [type(None), AnyMatcher]
    assert harness.backend.compiled_in != [threading.get_ident()]


def test_an_answer_without_a_grammar_does_not_wait(harness: Harness) -> None:
    """An answer without a grammar is made while no grammar can be compiled."""
    harness.backend.gate.clear()
    harness.handle(submit(1))
    harness.run()
    assert [type(event) for event in harness.events_of(1)] == [Started, Delta, Delta, Delta, Done]


def test_a_bad_grammar_is_refused(harness: Harness) -> None:
    """A bad grammar is refused before a sampler is made, and the next grammar is compiled."""
    harness.handle(submit(1, Grammar("bad")), submit(2, Grammar("good")))
    harness.take_compiled()
    assert harness.events_of(1) == [Refused(id=1, message="the grammar is bad", param="grammar")]
    assert harness.backend.samplers == []
    harness.take_compiled()
    harness.run()
    assert harness.text(2) == "yes"


def test_an_unexpected_error_refuses_only_one_request(harness: Harness) -> None:
    """After an unexpected error, the thread compiles the grammars of later requests."""
    harness.handle(submit(1, Grammar("broken")), submit(2, Grammar("good")))
    harness.take_compiled()
    [refused] = harness.events_of(1)
    assert isinstance(refused, Refused)
    harness.take_compiled()
    harness.run()
    assert harness.text(2) == "yes"


def test_a_prompt_that_is_too_long_is_refused_before_compilation(harness: Harness) -> None:
    """A prompt that is too long is refused with its length, and its grammar is not compiled."""
    prompt = TextPrompt([Part(text="x" * 300)])
    harness.handle(msgspec.structs.replace(submit(1, Grammar("good")), prompt=prompt))
    [refused] = harness.events
    assert isinstance(refused, Refused)
    assert (refused.num_prompt_tokens, refused.num_context_tokens) == (301, 256)
    assert harness.backend.compiled_in == []


@pytest.mark.parametrize("grammar", ["good", "bad"])
def test_a_request_can_be_cancelled_while_its_grammar_is_compiled(
    harness: Harness, grammar: str
) -> None:
    """The request ends at once, and the result of the compilation is ignored."""
    harness.backend.gate.clear()
    harness.handle(submit(1, Grammar(grammar)), Cancel(1))
    [done] = harness.events
    assert isinstance(done, Done)
    assert (done.id, done.finish_reason, done.num_completion_tokens) == (1, "cancelled", 0)
    harness.backend.gate.set()
    harness.take_compiled()
    assert not harness.dispatcher.has_work
    harness.handle(Cancel(1))
    assert harness.events == [done]
    assert harness.backend.samplers == []


def test_a_cancel_ends_no_other_request(harness: Harness) -> None:
    """An unknown id cancels neither a running request nor one that waits for its grammar."""
    harness.handle(submit(1, Grammar("good")), submit(2), Cancel(3))
    harness.take_compiled()
    harness.run()
    assert [_end(harness, number).finish_reason for number in (1, 2)] == ["stop", "stop"]
    assert not harness.events_of(3)


@pytest.mark.parametrize(
    ("forget", "num_cached"),
    [
        (Forget(owner="ann", session="1"), 0),
        (Forget(owner="ann"), 0),
        (Forget(owner="ann", session="2"), 7),
        (Forget(owner="bob"), 7),
    ],
)
def test_a_session_can_be_forgotten_while_its_grammar_is_compiled(
    harness: Harness, forget: Forget, num_cached: int
) -> None:
    """The answer of a forgotten session is made, and its KV state is not kept afterwards."""
    harness.handle(submit(1, Grammar("good")), forget)
    harness.take_compiled()
    harness.run()
    assert harness.text(1) == "yes"
    harness.handle(submit(2))
    harness.run()
    started = harness.events_of(2)[0]
    assert isinstance(started, Started)
    assert started.num_cached_tokens == num_cached
