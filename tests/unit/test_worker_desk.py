"""What becomes of commands, with a model that is arithmetic."""

from __future__ import annotations

import queue
import threading

import msgspec
import pytest

from llmd.engine.protocol import (
    Beat,
    Cancel,
    ChatPrompt,
    Command,
    Delta,
    Detokenize,
    Done,
    Embed,
    Embedded,
    Event,
    Forget,
    Grammar,
    JsonSchema,
    Message,
    Part,
    Refused,
    Render,
    Sampling,
    Started,
    Submit,
    Text,
    TextPrompt,
    Tokenize,
    Tokens,
    Tool,
    Tools,
)
from llmd.errors import InvalidField
from llmd.worker.backend import Matcher
from llmd.worker.compiler import Compiled
from llmd.worker.desk import MAX_QUERY_CHARS, Desk
from tests import embedding
from tests.fakes import END, SPELLING, Clock, FakeBackend, FakeSampler, says

BEGIN = 1
WAIT_S = 20


class Bound:
    """A grammar that allows anything."""

    is_complete = False

    def mask(self) -> None:
        """Allow anything."""

    def accept(self, token: int) -> None:
        """Go on by anything."""


class Backend(FakeBackend):
    """Compile while the gate is open: a grammar called `bad` cannot be, `broken` breaks."""

    def __init__(self) -> None:
        super().__init__(next_token=says("yes"))
        self.gate = threading.Event()
        self.gate.set()
        self.compiled_in: list[int] = []
        self.matchers: list[Matcher | None] = []
        self.embedder: embedding.FakeBackend | None = embedding.FakeBackend()

    def tokenize(self, parts: list[Part], *, begin: bool = True) -> list[int]:
        return [BEGIN] * begin + super().tokenize(parts)

    def compile(self, request: Submit, *, is_thinking: bool) -> Matcher | None:
        assert self.gate.wait(WAIT_S)
        self.compiled_in.append(threading.get_ident())
        if request.constraint == Grammar("bad"):
            raise InvalidField("it cannot be kept", param="grammar")
        if request.constraint == Grammar("broken"):
            raise RuntimeError("nobody foresaw it")
        return Bound()

    def sampler(self, request: Submit, recent: list[int], matcher: Matcher | None) -> FakeSampler:
        self.matchers.append(matcher)
        return super().sampler(request, recent, matcher)

    def make_embedder(self) -> embedding.FakeBackend:
        if self.embedder is None:
            raise InvalidField("this model makes no vectors")
        return self.embedder


class House:
    """A desk, and all that it told."""

    def __init__(self) -> None:
        self.backend = Backend()
        self.events: list[Event] = []
        self._compiled: queue.SimpleQueue[Compiled] = queue.SimpleQueue()
        self.desk = Desk(
            self.backend,
            self.events.append,
            self._compiled.put,
            max_state_bytes=1 << 20,
            clock=Clock(),
        )

    def obey(self, *commands: Command) -> None:
        for command in commands:
            self.desk.obey(command)

    def take_compiled(self) -> None:
        """Wait for the next that is compiled, and hand it to the desk as the worker does."""
        self.desk.obey(self._compiled.get(timeout=WAIT_S))

    def run(self) -> None:
        while self.desk.has_work:
            self.desk.step()

    def of(self, request_id: int) -> list[Event]:
        """Return what was told of a request."""
        return [event for event in self.events if getattr(event, "id", None) == request_id]

    def text(self, request_id: int) -> str:
        return "".join(event.text for event in self.of(request_id) if isinstance(event, Delta))


@pytest.fixture
def house() -> House:
    """Give a house."""
    return House()


def _submit(request_id: int, constraint: JsonSchema | Grammar | None = None) -> Submit:
    return Submit(
        id=request_id,
        owner="ann",
        session="1",
        prompt=TextPrompt([Part(text="Is it?:")]),
        sampling=Sampling(),
        max_tokens=20,
        constraint=constraint,
    )


def _with_tools(request_id: int) -> Submit:
    tools = Tools(tools=[Tool(name="f")])
    prompt = ChatPrompt([Message(role="user", content="hi")], tools)
    return msgspec.structs.replace(_submit(request_id), prompt=prompt)


def _end(house: House, request_id: int) -> Done:
    last = house.of(request_id)[-1]
    assert isinstance(last, Done)
    return last


# Queries


@pytest.mark.parametrize(
    ("special", "parse", "tokens"),
    [
        (False, True, [ord("a"), END]),
        (True, True, [BEGIN, ord("a"), END]),
        (False, False, [ord("a"), *SPELLING.encode()]),
    ],
)
def test_a_text_is_cut_into_tokens(
    house: House, special: bool, parse: bool, tokens: list[int]
) -> None:
    """Each with its bytes, special ones as they are spelled."""
    text = f"a{SPELLING}"
    house.obey(Tokenize(id=1, text=text, with_special=special, parse_special=parse))
    [told] = house.events
    assert isinstance(told, Tokens)
    assert (told.id, told.tokens) == (1, tokens)
    assert told.pieces[-1] == (SPELLING.encode() if parse else b">")
    assert b"".join(told.pieces) == b"\x01" * special + text.encode()


def test_tokens_are_joined_to_a_text(house: House) -> None:
    """Bytes that are no text are shown as such, once."""
    house.obey(Detokenize(1, [*"é".encode(), END, 0xC3]), Detokenize(2, []))
    assert house.events == [Text(1, f"é{SPELLING}\ufffd"), Text(2, "")]


def test_a_prompt_is_rendered_as_the_model_would_get_it(house: House) -> None:
    """As one text."""
    house.obey(Render(1, ChatPrompt([Message(role="user", content="hi")])))
    assert house.events == [Text(1, "user:hiassistant:")]


def test_a_query_that_cannot_be_answered_is_refused(house: House) -> None:
    """With the field that is wrong; the next one is answered."""
    house.obey(
        Detokenize(1, [5, END + 1]),
        Tokenize(id=2, text="x" * (MAX_QUERY_CHARS + 1)),
        Render(3, ChatPrompt([Message(role="user", content="refuse me")])),
        Tokenize(id=4, text="x"),
    )
    *refused, told = house.events
    assert [event.id for event in refused if isinstance(event, Refused)] == [1, 2, 3]
    assert [event.param for event in refused if isinstance(event, Refused)] == [
        "tokens",
        "content",
        "prompt",
    ]
    assert isinstance(told, Tokens)


def test_an_unknown_token_is_named_with_the_last_that_there_is(house: House) -> None:
    """So that the client knows which vocabulary it has to do with."""
    house.obey(Detokenize(1, [END + 7]))
    [refused] = house.events
    assert isinstance(refused, Refused)
    assert f"{END + 7}" in refused.message
    assert f"its last is {END}" in refused.message


def test_a_text_that_is_too_long_is_not_even_looked_at(house: House) -> None:
    """It would hold those up who generate; one of just that length is read."""
    house.obey(Tokenize(id=1, text="x" * (MAX_QUERY_CHARS + 1)))
    assert house.backend.num_tokenized == 0
    house.obey(Tokenize(id=2, text="x" * MAX_QUERY_CHARS))
    assert isinstance(house.of(2)[0], Tokens)


# What bounds an answer


@pytest.mark.parametrize(
    "request_", [_submit(1, JsonSchema("{}")), _submit(1, Grammar("good")), _with_tools(1)]
)
def test_a_bound_answer_waits_for_what_bounds_it_and_others_do_not(
    house: House, request_: Submit
) -> None:
    """It is compiled in a thread of its own, while this one decodes."""
    house.backend.gate.clear()
    house.obey(request_)
    assert not house.desk.has_work
    house.obey(_submit(2))
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
    house.obey(_submit(1))
    house.run()
    assert [type(event) for event in house.of(1)] == [Started, Delta, Delta, Delta, Done]


def test_an_answer_that_cannot_be_bound_is_refused(house: House) -> None:
    """By the field that is wrong; the next one is compiled, and no native memory is held."""
    house.obey(_submit(1, Grammar("bad")), _submit(2, Grammar("good")))
    house.take_compiled()
    assert house.of(1) == [Refused(id=1, message="it cannot be kept", param="grammar")]
    assert house.backend.samplers == []
    house.take_compiled()
    house.run()
    assert house.text(2) == "yes"


def test_what_nobody_foresaw_in_a_grammar_stops_no_other(house: House) -> None:
    """One request must not keep all later ones from their grammars."""
    house.obey(_submit(1, Grammar("broken")), _submit(2, Grammar("good")))
    house.take_compiled()
    [refused] = house.of(1)
    assert isinstance(refused, Refused)
    house.take_compiled()
    house.run()
    assert house.text(2) == "yes"


def test_a_request_that_cannot_be_is_refused_before_anything_is_compiled(house: House) -> None:
    """Too long a prompt, with its numbers."""
    prompt = TextPrompt([Part(text="x" * 300)])
    house.obey(msgspec.structs.replace(_submit(1, Grammar("good")), prompt=prompt))
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
    house.obey(_submit(1, Grammar(grammar)), Cancel(1))
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
    house.obey(_submit(1, Grammar("good")), _submit(2), Cancel(3))
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
    house.obey(_submit(1, Grammar("good")), forget)
    house.take_compiled()
    house.run()
    assert house.text(1) == "yes"
    house.obey(_submit(2))
    house.run()
    started = house.of(2)[0]
    assert isinstance(started, Started)
    assert started.num_cached_tokens == num_cached


# Vectors


def test_vectors_are_made_beside_answers(house: House) -> None:
    """Each step runs both; a beat tells of the tokens of each."""
    house.obey(_submit(1), Embed(2, ["abc", "d"]))
    assert house.desk.has_work
    house.desk.step()
    beats = [event.num_step_tokens for event in house.events if isinstance(event, Beat)]
    assert beats == [8, 6]
    [embedded] = house.of(2)
    assert isinstance(embedded, Embedded)
    assert (len(embedded.vectors), embedded.num_tokens) == (2, 6)
    house.run()
    assert house.text(1) == "yes"


def test_vectors_may_be_cancelled(house: House) -> None:
    """As answers may."""
    house.obey(Embed(1, ["abc"]), Cancel(1))
    assert not house.desk.has_work
    assert _end(house, 1).finish_reason == "cancelled"


def test_a_model_that_makes_no_vectors_refuses_them(house: House) -> None:
    """And answers as before."""
    house.backend.embedder = None
    house.obey(Embed(1, ["abc"]), _submit(2))
    assert house.of(1) == [Refused(id=1, message="this model makes no vectors", param="input")]
    house.run()
    assert house.text(2) == "yes"
