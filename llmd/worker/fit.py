"""Make a prompt fit the context: the oldest turns are left out first."""

from __future__ import annotations

from llmd.engine.protocol import Part, Prompt, Submit, TextPrompt, TokenPrompt
from llmd.errors import InvalidField, PromptTooLong
from llmd.worker.backend import Backend

TURN_BLOCK = 2
"""Old turns go in blocks, so that the prompt begins the same for some turns and is reused."""

CHARS_A_TOKEN = 16
"""More than a token of any ordinary text has."""

MIN_CHECKED_CHARS = 4096
"""A shorter text is tokenised as a whole at once."""


def fit(backend: Backend, request: Submit) -> tuple[list[int], int]:
    """Return the prompt's tokens and how many old turns they hold.

    A quarter of the context, or `max_tokens` if that is less, is kept for the answer as long
    as there are turns to leave out. Raise `PromptTooLong` when even without any it is too long,
    and `InvalidField` when it has no token to go on from.
    """
    num_context = min(
        backend.num_context_tokens, request.max_context_tokens or backend.num_context_tokens
    )
    _check_length(backend, request.prompt, num_context)
    room = num_context - max(1, min(request.max_tokens, num_context // 4))
    tokens = _tokens(backend, request.prompt, 0)
    if not tokens:
        raise InvalidField("the prompt has no text: give at least a word", param="prompt")
    if len(tokens) <= room:
        return tokens, request.num_turns
    # The fewest blocks to leave out, by bisection: tokenising takes long for long prompts.
    low, high = 1, -(-request.num_turns // TURN_BLOCK)
    while low < high:
        middle = (low + high) // 2
        if len(_tokens(backend, request.prompt, middle * TURN_BLOCK)) <= room:
            high = middle
        else:
            low = middle + 1
    num_dropped = min(high * TURN_BLOCK, request.num_turns)
    if num_dropped:
        tokens = _tokens(backend, request.prompt, num_dropped)
    if len(tokens) >= num_context:
        raise PromptTooLong(len(tokens), num_context)
    return tokens, request.num_turns - num_dropped


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


def _tokens(backend: Backend, prompt: Prompt, num_dropped: int) -> list[int]:
    """Return the tokens of a prompt without its first `num_dropped` turns."""
    if isinstance(prompt, TokenPrompt):
        return prompt.tokens
    if isinstance(prompt, TextPrompt):
        parts = [part for part in prompt.parts if not 0 <= part.turn < num_dropped]
    else:
        parts = backend.render(
            [message for message in prompt.messages if not 0 <= message.turn < num_dropped]
        )
    return backend.tokenize(parts)
