from __future__ import annotations

import itertools

from llmd.engine.protocol import (
    ChatPrompt,
    Message,
    Part,
    Sampling,
    Started,
    Submit,
    TextPrompt,
    Tool,
    Tools,
)
from llmd.worker.kv.template_prefix import MAX_PREFIXES, TemplatePrefixes, num_shareable
from tests.support.fake_backend import FakeBackend
from tests.support.scheduler_harness import Harness

_ids = itertools.count(1)

BEGINNING = len("assistant:")
"""What the fake template writes before the first message of this role."""


def _chat(text: str, **more: object) -> ChatPrompt:
    message = Message(role="assistant", content=text)
    return ChatPrompt(messages=[message], **more)  # type: ignore[arg-type]


def _num_cached(harness: Harness, owner: str, text: str) -> int:
    request_id = next(_ids)
    harness.scheduler.submit(
        Submit(
            id=request_id,
            owner=owner,
            prompt=_chat(text),
            sampling=Sampling(),
            max_tokens=3,
        )
    )
    harness.run()
    (started,) = (e for e in harness.events if isinstance(e, Started) and e.id == request_id)
    assert harness.text(request_id) == "abc"
    return started.num_cached_tokens


def test_the_words_of_the_template_are_computed_once_for_all_owners() -> None:
    """The first owner's messages are not reused for the second, the words before them are."""
    harness = Harness()
    assert _num_cached(harness, "ann", "a secret") == 0
    assert _num_cached(harness, "bob", "a secret") == BEGINNING
    assert _num_cached(harness, "cem", "something else") == BEGINNING


def test_they_are_read_by_themselves_only_once() -> None:
    """One step more for the first, none for those who come later."""
    harness = Harness()
    _num_cached(harness, "ann", "first")
    assert harness.backend.steps[0] == {0: BEGINNING}
    num_steps = len(harness.backend.steps)
    _num_cached(harness, "bob", "second")
    assert len(harness.backend.steps) - num_steps == 3


def _shareable(prompt: ChatPrompt | TextPrompt) -> int:
    backend = FakeBackend()
    parts = prompt.parts if isinstance(prompt, TextPrompt) else backend.render(prompt)
    return num_shareable(backend, prompt, parts, backend.tokenize(parts))


def test_nothing_that_a_request_had_a_say_in_is_shared() -> None:
    """Tools, values for the template, and prompts without the model's own template."""
    assert _shareable(_chat("hello")) == BEGINNING
    tools = Tools(tools=[Tool(name="f")])
    assert _shareable(_chat("hello", tools=tools)) == 0
    assert _shareable(_chat("hello", variables='{"thinking": true}')) == 0
    profile = [Part(text="You are a pirate. ", literal=True), Part(text="hello")]
    assert _shareable(TextPrompt(parts=profile)) == 0


def test_words_that_cannot_be_told_from_the_messages_are_not_shared() -> None:
    """Such a template gives one part, with the messages in it."""
    backend = FakeBackend()
    parts = [Part(text="assistant:a secret of mine", literal=True)]
    assert num_shareable(backend, _chat("x"), parts, backend.tokenize(parts)) == 0


def test_only_so_many_are_kept() -> None:
    """Those used last."""
    shared = TemplatePrefixes()
    for number in range(MAX_PREFIXES + 1):
        shared.add([number, 7], b"%d" % number)
        assert shared.find([1, 7, 9]) == ((2, b"1") if number else (0, b""))
    assert shared.find([0, 7, 9]) == (0, b"")
    assert shared.find([1, 7]) == (2, b"1")
