"""What bounds an answer is compiled beside those that are made."""

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
from tests.support.dispatch_harness import Bound, House, submit


@pytest.fixture
def house() -> House:
    """Give a house."""
    return House()


def _with_tools(request_id: int) -> Submit:
    tools = Tools(tools=[Tool(name="f")])
    prompt = ChatPrompt([Message(role="user", content="hi")], tools)
    return msgspec.structs.replace(submit(request_id), prompt=prompt)


def _end(house: House, request_id: int) -> Done:
    last = house.of(request_id)[-1]
    assert isinstance(last, Done)
    return last


@pytest.mark.parametrize(
    "request_", [submit(1, JsonSchema("{}")), submit(1, Grammar("good")), _with_tools(1)]
)
def test_a_bound_answer_waits_for_what_bounds_it_and_others_do_not(
    house: House, request_: Submit
) -> None:
    """It is compiled in a thread of its own, while this one decodes."""
    house.backend.gate.clear()
    house.obey(request_)
    assert not house.desk.has_work
    house.obey(submit(2))
    house.run()
    assert house.text(2) == "yes"
    assert house.of(1) == []
    house.backend.gate.set()
    house.take_compiled()
    house.run()
    assert house.text(1) == "yes"
    assert _end(house, 1).finish_reason == "stop"
    assert [type(matcher) for matcher in house.backend.matchers] == [type(None), Bound]
    assert house.backend.compiled_in != [threading.get_ident()]


def test_a_free_answer_waits_for_nothing(house: House) -> None:
    """Nothing is compiled for it."""
    house.backend.gate.clear()
    house.obey(submit(1))
    house.run()
    assert [type(event) for event in house.of(1)] == [Started, Delta, Delta, Delta, Done]


def test_an_answer_that_cannot_be_bound_is_refused(house: House) -> None:
    """By the field that is wrong; the next one is compiled, and no native memory is held."""
    house.obey(submit(1, Grammar("bad")), submit(2, Grammar("good")))
    house.take_compiled()
    assert house.of(1) == [Refused(id=1, message="it cannot be kept", param="grammar")]
    assert house.backend.samplers == []
    house.take_compiled()
    house.run()
    assert house.text(2) == "yes"


def test_what_nobody_foresaw_in_a_grammar_stops_no_other(house: House) -> None:
    """One request must not keep all later ones from their grammars."""
    house.obey(submit(1, Grammar("broken")), submit(2, Grammar("good")))
    house.take_compiled()
    [refused] = house.of(1)
    assert isinstance(refused, Refused)
    house.take_compiled()
    house.run()
    assert house.text(2) == "yes"


def test_a_request_that_cannot_be_is_refused_before_anything_is_compiled(house: House) -> None:
    """Too long a prompt, with its numbers."""
    prompt = TextPrompt([Part(text="x" * 300)])
    house.obey(msgspec.structs.replace(submit(1, Grammar("good")), prompt=prompt))
    [refused] = house.events
    assert isinstance(refused, Refused)
    assert (refused.num_prompt_tokens, refused.num_context_tokens) == (301, 256)
    assert house.backend.compiled_in == []


@pytest.mark.parametrize("grammar", ["good", "bad"])
def test_an_answer_may_be_cancelled_while_its_grammar_is_compiled(
    house: House, grammar: str
) -> None:
    """It ends at once, and what is compiled for it all the same is nobody's."""
    house.backend.gate.clear()
    house.obey(submit(1, Grammar(grammar)), Cancel(1))
    [done] = house.events
    assert isinstance(done, Done)
    assert (done.id, done.finish_reason, done.num_completion_tokens) == (1, "cancelled", 0)
    house.backend.gate.set()
    house.take_compiled()
    assert not house.desk.has_work
    house.obey(Cancel(1))
    assert house.events == [done]
    assert house.backend.samplers == []


def test_a_cancel_ends_no_other(house: House) -> None:
    """Neither one that is compiled for nor one that runs; an unknown one is nothing."""
    house.obey(submit(1, Grammar("good")), submit(2), Cancel(3))
    house.take_compiled()
    house.run()
    assert [_end(house, number).finish_reason for number in (1, 2)] == ["stop", "stop"]
    assert not house.of(3)


@pytest.mark.parametrize(
    ("forget", "num_cached"),
    [
        (Forget(owner="ann", session="1"), 0),
        (Forget(owner="ann"), 0),
        (Forget(owner="ann", session="2"), 7),
        (Forget(owner="bob"), 7),
    ],
)
def test_a_session_may_be_forgotten_while_its_grammar_is_compiled(
    house: House, forget: Forget, num_cached: int
) -> None:
    """Its answer is made, and nothing of it stays warm thereafter."""
    house.obey(submit(1, Grammar("good")), forget)
    house.take_compiled()
    house.run()
    assert house.text(1) == "yes"
    house.obey(submit(2))
    house.run()
    started = house.of(2)[0]
    assert isinstance(started, Started)
    assert started.num_cached_tokens == num_cached
