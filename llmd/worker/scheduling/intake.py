"""Make the sequence of a request: its tokens, and the stream that separates its answer's parts."""

from __future__ import annotations

from llmd.engine.protocol import ChatPrompt, Part, Submit
from llmd.worker.answer.parser import AnswerParser
from llmd.worker.answer.stream import AnswerStream
from llmd.worker.backend import Backend
from llmd.worker.kv.prefix import common_prefix
from llmd.worker.prompt.fit import fit
from llmd.worker.scheduling.sequence import Sequence


def sequence_of(backend: Backend, request: Submit, submitted_at: float) -> Sequence:
    """Return the waiting sequence of a request. Raise `InvalidField` or `PromptTooLong`."""
    fitted = fit(backend, request)
    num_context = backend.num_context_tokens
    is_thinking = _begins_in_thought(backend, request, fitted.tail)
    parser = _parser(backend, request, is_thinking=is_thinking)
    return Sequence(
        request,
        fitted.tokens,
        fitted.num_turns,
        min(num_context, request.max_context_tokens or num_context),
        AnswerStream(request.id, request.stop, parser),
        submitted_at,
        is_thinking,
        fitted.num_shareable,
        checkpoints_of(backend, fitted.parts, fitted.tokens, request.owner),
    )


MIN_CHECKPOINT_TOKENS = 16
"""A checkpoint nearer than this to the next one is left out: the tokens are soon read again."""


def checkpoints_of(backend: Backend, parts: list[Part], tokens: list[int], owner: str) -> list[int]:
    """Return after how many tokens of a prompt its state should be kept, in order.

    The last is before the last token, for a request that asks the same again. The others are
    where another question may follow: before the second message, behind the system text as a
    rule, and before the last message. None where the memory can be cut back anyway.
    """
    if backend.can_truncate and not backend.window:
        return []
    last = len(tokens) - 1
    messages = [at for at, part in enumerate(parts) if not part.literal]
    starts = {
        common_prefix(backend.tokenize(parts[:at], owner=owner), tokens)
        for at in {*messages[1:2], *messages[-1:]}
    }
    found: list[int] = [last] if last > 0 else []
    for start in sorted(starts, reverse=True):
        if MIN_CHECKPOINT_TOKENS <= start <= found[0] - MIN_CHECKPOINT_TOKENS:
            found.insert(0, start)
    return found


def _begins_in_thought(backend: Backend, request: Submit, tail: str) -> bool:
    """Return whether the prompt, which ends with `tail`, leaves a thought open."""
    prompt = request.prompt
    if not isinstance(prompt, ChatPrompt):
        return False
    if prompt.ending == "answer":
        return backend.syntax.opens_thought(tail)
    # The tail is text of a message, in which nothing is a marker.
    return prompt.ending == "reasoning"


def _parser(backend: Backend, request: Submit, *, is_thinking: bool) -> AnswerParser | None:
    """Return the parser of thoughts and tool calls, if the answer may have any."""
    prompt, syntax = request.prompt, backend.syntax
    if not isinstance(prompt, ChatPrompt):
        return None
    if prompt.tools is None and syntax.is_plain:
        return None
    return AnswerParser(
        syntax,
        request_id=request.id,
        tools=prompt.tools,
        is_thinking=is_thinking,
        is_continued=prompt.ending != "answer",
    )
