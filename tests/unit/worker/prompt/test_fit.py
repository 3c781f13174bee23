from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmd.engine.protocol import (
    ChatPrompt,
    Message,
    Part,
    Prompt,
    Sampling,
    Submit,
    TextPrompt,
    TokenPrompt,
)
from llmd.errors import InvalidField, PromptTooLong
from llmd.worker.prompt.fit import fit
from tests.support.fake_backend import FakeBackend


def _request(prompt: Prompt, num_turns: int, max_tokens: int, limit: int | None = None) -> Submit:
    return Submit(
        id=1,
        owner="ann",
        prompt=prompt,
        sampling=Sampling(),
        max_tokens=max_tokens,
        num_turns=num_turns,
        max_context_tokens=limit,
    )


def _text(lengths: list[int], size: int) -> TextPrompt:
    """Return a prompt of a head, a run of one letter for each old turn, and a question."""
    parts = [Part(text="H", literal=True)]
    parts += [Part(text=chr(ord("a") + turn) * n, turn=turn) for turn, n in enumerate(lengths)]
    return TextPrompt([*parts, Part(text="Q" * size)])


def _without(prompt: TextPrompt, num_dropped: int) -> list[int]:
    kept = [part.text for part in prompt.parts if part.turn == -1 or part.turn >= num_dropped]
    return list("".join(kept).encode())


@given(
    st.lists(st.integers(0, 30), max_size=9),
    st.integers(1, 60),
    st.integers(1, 80),
    st.integers(1, 100),
    st.none() | st.integers(1, 120),
)
@example(lengths=[], size=1, max_tokens=1, num_context=2, limit=None)
@example(lengths=[1], size=1, max_tokens=1, num_context=3, limit=None)
def test_old_turns_are_left_out_until_the_prompt_fits(
    lengths: list[int], size: int, max_tokens: int, num_context: int, limit: int | None
) -> None:
    """A prompt that fits keeps its newest turns, at least half of those that fit."""
    prompt = _text(lengths, size)
    backend = FakeBackend(num_context_tokens=num_context)
    request = _request(prompt, len(lengths), max_tokens, limit)
    context = min(num_context, limit or num_context)
    if size + 1 >= context:
        with pytest.raises(PromptTooLong) as caught:
            fit(backend, request)
        # A text that is far too long is not tokenised to its end.
        least = size + 1 if size <= 16 * context else context
        assert least <= caught.value.num_prompt_tokens <= size + 1
        assert caught.value.num_context_tokens == context
        return
    fitted = fit(backend, request)
    tokens, num_kept = fitted.tokens, fitted.num_turns
    num_dropped = len(lengths) - num_kept
    assert tokens == _without(prompt, num_dropped)
    assert len(tokens) < context
    room = context - max(1, min(max_tokens, context // 4))
    num_fitting = len(lengths)
    while num_fitting and len(_without(prompt, len(lengths) - num_fitting)) > room:
        num_fitting -= 1
    assert num_fitting / 2 <= num_kept <= num_fitting
    if num_fitting == len(lengths):
        assert num_kept == num_fitting
    assert backend.num_tokenized <= 3 + math.log2(len(lengths) + 1)


def test_a_long_conversation_begins_the_same_for_some_turns() -> None:
    """Old turns are left out in blocks, so that the KV can be reused for some turns."""
    backend = FakeBackend(num_context_tokens=120)
    dropped = [
        num_turns - fit(backend, _request(_text([10] * num_turns, 10), num_turns, 10)).num_turns
        for num_turns in range(30)
    ]
    assert dropped == sorted(dropped)
    assert dropped[:10] == [0] * 10
    assert set(dropped) == {0, 4, 8, 12, 16, 20}


def test_prompt_that_fits_is_tokenised_once() -> None:
    """A prompt that fits is tokenised once."""
    backend = FakeBackend()
    fitted = fit(backend, _request(_text([3, 3, 3], 5), 3, 16))
    assert (fitted.tokens, fitted.num_turns) == (list(b"HaaabbbcccQQQQQ"), 3)
    assert backend.num_tokenized == 1


def test_chat_prompt_loses_old_messages_by_their_turns() -> None:
    """Messages of the oldest turns are left out, and those without a turn stay."""
    messages = [Message(role="system", content="be kind")]
    for turn in range(3):
        messages.append(Message(role="user", content="u" * 20, turn=turn))
        messages.append(Message(role="assistant", content=str(turn), turn=turn))
    messages.append(Message(role="user", content="why?"))
    backend = FakeBackend(num_context_tokens=100)
    fitted = fit(backend, _request(ChatPrompt(messages), 3, 10))
    assert fitted.num_turns == 1
    assert bytes(fitted.tokens) == (
        b"system:be kinduser:" + b"u" * 20 + b"assistant:2user:why?assistant:"
    )


def test_prompt_without_a_token_is_refused() -> None:
    """A prompt without any token is refused."""
    with pytest.raises(InvalidField, match="no text"):
        fit(FakeBackend(), _request(TextPrompt([Part(text="")]), 0, 16))


def test_far_too_long_a_text_is_refused_from_its_beginning() -> None:
    """A text that is far too long is refused after its beginning is tokenised."""
    backend = FakeBackend(num_context_tokens=10)
    seen: list[int] = []
    tokenize = backend.tokenize

    def counting(parts: list[Part], *, begin: bool = True, owner: str | None = None) -> list[int]:
        seen.append(sum(len(part.text) for part in parts))
        return tokenize(parts, begin=begin, owner=owner)

    backend.tokenize = counting  # type: ignore[method-assign]
    with pytest.raises(PromptTooLong, match="more than 4096 tokens"):
        fit(backend, _request(_text([], 1_000_000), 0, 1))
    assert seen == [4096]


def test_tokens_of_a_request_are_copied() -> None:
    """Appending the answer's tokens to the prompt does not change the request."""
    request = _request(TokenPrompt(tokens=[104, 105]), num_turns=0, max_tokens=4)
    fit(FakeBackend(), request).tokens.append(1)
    assert request.prompt == TokenPrompt(tokens=[104, 105])
