"""Make a prompt fit the context: the oldest turns are left out first."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from llmd.engine.protocol import Part, Prompt, Submit, TextPrompt, TokenPrompt
from llmd.errors import InvalidField, PromptTooLong
from llmd.worker.backend import Backend
from llmd.worker.kv.template_prefix import num_shareable

CHARS_A_TOKEN = 16
"""More than a token of any ordinary text has."""

TAIL_CHARS = 64

MIN_CHECKED_CHARS = 4096
"""A shorter text is tokenised as a whole at once."""


@dataclass(frozen=True)
class Fitted:
    """The tokens of a prompt, how many old turns they hold, and the end of its text.

    The first `num_shareable` tokens are the chat template's own words.
    """

    tokens: list[int]
    num_turns: int
    tail: str = ""
    num_shareable: int = 0


def fit(backend: Backend, request: Submit) -> Fitted:
    """Return what of a prompt goes to the model.

    A quarter of the context, or `max_tokens` if that is less, is kept for the answer as long
    as there are turns to leave out. Raise `PromptTooLong` when even without any it is too long,
    and `InvalidField` when it has no token to go on from.
    """
    num_context = min(
        backend.num_context_tokens, request.max_context_tokens or backend.num_context_tokens
    )
    _check_length(backend, request.prompt, num_context)
    room = num_context - max(1, min(request.max_tokens, num_context // 4))
    tokens, parts = _tokens(backend, request, 0)
    if not tokens:
        raise InvalidField("the prompt has no text: give at least a word", param="prompt")
    if len(tokens) <= room:
        return _fitted(backend, request.prompt, tokens, parts, request.num_turns)
    num_dropped = _num_dropped(backend, request, room)
    if num_dropped:
        tokens, parts = _tokens(backend, request, num_dropped)
    if len(tokens) >= num_context:
        raise PromptTooLong(len(tokens), num_context)
    num_turns = request.num_turns - num_dropped
    return _fitted(backend, request.prompt, tokens, parts, num_turns)


def _num_dropped(backend: Backend, request: Submit, room: int) -> int:
    """Return how many old turns to leave out: as many as it takes, and then some.

    They go in blocks of up to half of those that fit: for some turns the prompt then begins as
    before, and what was computed of it is used again.
    """
    # By bisection: tokenising takes long for long prompts.
    low, high = min(1, request.num_turns), request.num_turns
    while low < high:
        middle = (low + high) // 2
        if len(_tokens(backend, request, middle)[0]) <= room:
            high = middle
        else:
            low = middle + 1
    block = _block(request.num_turns - high)
    return min(-(-high // block) * block, request.num_turns)


def _block(num_fitting: int) -> int:
    """Return the largest power of two up to half of the turns that fit.

    Blocks of all sizes have their ends in common then, should one turn more or less fit.
    """
    half: int = max(1, num_fitting // 2)
    return 1 << (half.bit_length() - 1)


def _fitted(
    backend: Backend, prompt: Prompt, tokens: list[int], parts: list[Part], num_turns: int
) -> Fitted:
    tail = parts[-1].text[-TAIL_CHARS:] if parts else ""
    return Fitted(tokens, num_turns, tail, num_shareable(backend, prompt, parts, tokens))


def _check_length(backend: Backend, prompt: Prompt, num_context: int) -> None:
    """Raise `PromptTooLong` for far too long a text, from its beginning alone.

    This runs in the thread that decodes: a megabyte would hold all others up for seconds.
    """
    if isinstance(prompt, TokenPrompt):
        return
    texts = (
        [part.text for part in prompt.parts if part.turn < 0]
        if isinstance(prompt, TextPrompt)
        else [message.content for message in prompt.messages if message.turn < 0]
    )
    longest = max(texts, key=len, default="")
    num_chars = max(MIN_CHECKED_CHARS, CHARS_A_TOKEN * num_context)
    if len(longest) > num_chars:
        num_tokens = len(backend.tokenize([Part(text=longest[:num_chars])]))
        if num_tokens >= num_context:
            raise PromptTooLong(num_tokens, num_context, is_exact=False)


def _tokens(backend: Backend, request: Submit, num_dropped: int) -> tuple[list[int], list[Part]]:
    """Return the tokens and the parts of a prompt without its first `num_dropped` turns."""
    prompt = request.prompt
    if isinstance(prompt, TokenPrompt):
        unknown = [token for token in prompt.tokens if token >= backend.num_vocabulary]
        if unknown:
            raise InvalidField(
                f"the model has no token {unknown[0]}: its last is {backend.num_vocabulary - 1}",
                param="prompt",
            )
        # The answer's tokens are added to them.
        return list(prompt.tokens), []
    if isinstance(prompt, TextPrompt):
        parts = [part for part in prompt.parts if not 0 <= part.turn < num_dropped]
    else:
        kept = [message for message in prompt.messages if not 0 <= message.turn < num_dropped]
        parts = backend.render(msgspec.structs.replace(prompt, messages=kept))
    return backend.tokenize(parts, owner=request.owner), parts
