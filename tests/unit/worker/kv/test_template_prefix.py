"""Prefixes of the chat template, which all owners share."""

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

PREFIX_LENGTH = len("assistant:")
"""The number of tokens that the fake template writes before the first message."""


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


def test_the_prefix_of_a_template_is_computed_once_for_all_owners() -> None:
    """The text before the first message is reused for other owners, the messages are not."""
    harness = Harness()
    assert _num_cached(harness, "ann", "a secret") == 0
    assert _num_cached(harness, "bob", "a secret") == PREFIX_LENGTH
    assert _num_cached(harness, "cem", "something else") == PREFIX_LENGTH


def test_the_prefix_of_a_template_is_read_in_a_step_of_its_own_once() -> None:
    """The prefix takes a step of its own for the first request, and none for later ones."""
    harness = Harness()
    _num_cached(harness, "ann", "first")
    assert harness.backend.steps[0] == {0: PREFIX_LENGTH}
    num_steps = len(harness.backend.steps)
    _num_cached(harness, "bob", "second")
    assert len(harness.backend.steps) - num_steps == 3


def _shareable(prompt: ChatPrompt | TextPrompt) -> int:
    backend = FakeBackend()
    parts = prompt.parts if isinstance(prompt, TextPrompt) else backend.render(prompt)
    return num_shareable(backend, prompt, parts, backend.tokenize(parts))


def test_text_that_a_request_influences_is_not_shared() -> None:
    """Prompts with tools, with variables or without the model's own template share nothing."""
    assert _shareable(_chat("hello")) == PREFIX_LENGTH
    tools = Tools(tools=[Tool(name="f")])
    assert _shareable(_chat("hello", tools=tools)) == 0
    assert _shareable(_chat("hello", variables='{"thinking": true}')) == 0
    profile = [Part(text="You are a pirate. ", literal=True), Part(text="hello")]
    assert _shareable(TextPrompt(parts=profile)) == 0


def test_a_prefix_that_cannot_be_separated_is_not_shared() -> None:
    """A template that renders messages as literal text has no prefix to share."""
    backend = FakeBackend()
    parts = [Part(text="assistant:a secret of mine", literal=True)]
    assert num_shareable(backend, _chat("x"), parts, backend.tokenize(parts)) == 0


def test_the_most_recently_used_prefixes_are_kept() -> None:
    """A new prefix replaces the least recently used of `MAX_PREFIXES`."""
    prefixes = TemplatePrefixes()
    for number in range(MAX_PREFIXES + 1):
        prefixes.add([number, 7], b"%d" % number)
        assert prefixes.find([1, 7, 9]) == ((2, b"1") if number else (0, b""))
    assert prefixes.find([0, 7, 9]) == (0, b"")
    assert prefixes.find([1, 7]) == (2, b"1")
