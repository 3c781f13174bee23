"""Make the sequence of a request: its tokens, and the stream that separates its answer's parts."""

from __future__ import annotations

from llmd.engine.protocol import ChatPrompt, Submit
from llmd.worker.answer.parser import AnswerParser
from llmd.worker.answer.stream import AnswerStream
from llmd.worker.backend import Backend
from llmd.worker.prompt.fit import fit
from llmd.worker.scheduling.sequence import Sequence


def sequence_of(backend: Backend, request: Submit, submitted_at: float) -> Sequence:
    """Return the waiting sequence of a request. Raise `InvalidField` or `PromptTooLong`."""
    fitted = fit(backend, request)
    num_context = backend.num_context_tokens
    is_chat = isinstance(request.prompt, ChatPrompt)
    is_thinking = is_chat and backend.syntax.opens_thought(fitted.tail)
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
    )


def _parser(backend: Backend, request: Submit, *, is_thinking: bool) -> AnswerParser | None:
    """Return the parser of thoughts and tool calls, if the answer may have any."""
    prompt, syntax = request.prompt, backend.syntax
    if not isinstance(prompt, ChatPrompt):
        return None
    if prompt.tools is None and not syntax.thinks:
        return None
    return AnswerParser(syntax, request_id=request.id, tools=prompt.tools, is_thinking=is_thinking)
