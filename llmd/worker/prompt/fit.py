"""Make a prompt fit the context by leaving out the oldest turns."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from llmd.engine.protocol import Part, Prompt, Submit, TextPrompt, TokenPrompt
from llmd.errors import InvalidField, PromptTooLong
from llmd.worker.backend import Backend
from llmd.worker.kv.template_prefix import num_shareable

CHARS_A_TOKEN = 16
"""More characters than an average token of any ordinary text has."""

TAIL_CHARS = 64
"""Characters kept from the end of the prompt, enough to recognise the marker of a thought."""

MIN_CHECKED_CHARS = 4096
"""Tokenise a text of up to this length as a whole, without checking its beginning first."""


@dataclass(frozen=True)
class Fitted:
    """A prompt that fits the context."""

    tokens: list[int]
    num_turns: int
    """Number of old turns in the prompt."""
    tail: str = ""
    """The end of the prompt's text, up to `TAIL_CHARS` characters."""
    num_shareable: int = 0
    """Number of tokens at the beginning that come from the chat template alone."""
    parts: list[Part] = field(default_factory=list)
    """The text that the tokens come from; empty for a prompt of tokens."""


def fit(backend: Backend, request: Submit) -> Fitted:
    """Return the prompt of a request, without the old turns that do not fit.

    As long as there are old turns to leave out, reserve a quarter of the context for the answer,
    or `max_tokens` if that is less. Raise `PromptTooLong` if the prompt is too long even without
    old turns, and `InvalidField` if it has no tokens.
    """
    num_context = min(
        backend.num_context_tokens, request.max_context_tokens or backend.num_context_tokens
    )
    _check_length(backend, request.prompt, num_context)
    num_max = num_context - max(1, min(request.max_tokens, num_context // 4))
    tokens, parts = _tokens(backend, request, 0)
    if not tokens:
        raise InvalidField("the prompt has no text: give at least one word", param="prompt")
    if len(tokens) <= num_max:
        return _fitted(backend, request.prompt, tokens, parts, request.num_turns)
    num_dropped = _num_dropped(backend, request, num_max)
    if num_dropped:
        tokens, parts = _tokens(backend, request, num_dropped)
    if len(tokens) >= num_context:
        raise PromptTooLong(len(tokens), num_context)
    num_turns = request.num_turns - num_dropped
    return _fitted(backend, request.prompt, tokens, parts, num_turns)


def _num_dropped(backend: Backend, request: Submit, num_max: int) -> int:
    """Return how many old turns to leave out so that at most `num_max` tokens remain.

    Turns are left out in blocks of up to half of those that fit, so more may go than necessary.
    The prompt then begins the same for some further turns, and its KV can be reused.
    """
    # Use bisection, because tokenising a long prompt takes long.
    low, high = min(1, request.num_turns), request.num_turns
    while low < high:
        middle = (low + high) // 2
        if len(_tokens(backend, request, middle)[0]) <= num_max:
            high = middle
        else:
            low = middle + 1
    block = _block(request.num_turns - high)
    return min(-(-high // block) * block, request.num_turns)


def _block(num_fitting: int) -> int:
    """Return the largest power of two up to half of the turns that fit.

    With powers of two, the ends of larger blocks are also ends of smaller ones. The beginning of
    the prompt then rarely changes when one turn more or less fits.
    """
    half: int = max(1, num_fitting // 2)
    return 1 << (half.bit_length() - 1)


def _fitted(
    backend: Backend, prompt: Prompt, tokens: list[int], parts: list[Part], num_turns: int
) -> Fitted:
    tail = parts[-1].text[-TAIL_CHARS:] if parts else ""
    return Fitted(tokens, num_turns, tail, num_shareable(backend, prompt, parts, tokens), parts)


def _check_length(backend: Backend, prompt: Prompt, num_context: int) -> None:
    """Raise `PromptTooLong` if the beginning of the longest text alone is too long.

    This runs in the decoding thread, where tokenising a megabyte would stall all other requests
    for seconds.
    """
    if isinstance(prompt, TokenPrompt):
        return
    texts = (
        [part.text for part in prompt.parts if part.turn < 0]
        if isinstance(prompt, TextPrompt)
        else [
            text
            for message in prompt.messages
            if message.turn < 0
            for text in (message.content, message.reasoning)
        ]
    )
    longest = max(texts, key=len, default="")
    num_chars = max(MIN_CHECKED_CHARS, CHARS_A_TOKEN * num_context)
    if len(longest) > num_chars:
        num_tokens = len(backend.tokenize([Part(text=longest[:num_chars])]))
        if num_tokens >= num_context:
            raise PromptTooLong(num_tokens, num_context, is_exact=False)


def _tokens(backend: Backend, request: Submit, num_dropped: int) -> tuple[list[int], list[Part]]:
    """Return (tokens, parts) of the prompt without its first `num_dropped` turns."""
    prompt = request.prompt
    if isinstance(prompt, TokenPrompt):
        unknown = [token for token in prompt.tokens if token >= backend.num_vocabulary]
        if unknown:
            raise InvalidField(
                f"the model has no token {unknown[0]}: its last is {backend.num_vocabulary - 1}",
                param="prompt",
            )
        # Return a copy, because the caller appends the tokens of the answer.
        return list(prompt.tokens), []
    if isinstance(prompt, TextPrompt):
        parts = [part for part in prompt.parts if not 0 <= part.turn < num_dropped]
    else:
        kept = [message for message in prompt.messages if not 0 <= message.turn < num_dropped]
        parts = backend.render(msgspec.structs.replace(prompt, messages=kept))
    return backend.tokenize(parts, owner=request.owner), parts
