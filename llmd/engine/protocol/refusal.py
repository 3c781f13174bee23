"""Carry the error of a request from the worker to the daemon as a `Refused` event."""

from __future__ import annotations

from llmd.engine.protocol.events import Refused
from llmd.errors import InvalidField, LlmdError, PromptTooLong


def refusal_event(request_id: int, error: LlmdError, param: str | None = None) -> Refused:
    """Return the event that reports an error. A `param` replaces the name of the error's field."""
    too_long = error if isinstance(error, PromptTooLong) else None
    return Refused(
        id=request_id,
        message=error.message,
        param=param or error.param or "prompt",
        num_prompt_tokens=too_long.num_prompt_tokens if too_long else 0,
        num_context_tokens=too_long.num_context_tokens if too_long else 0,
    )


def refusal_error(event: Refused) -> LlmdError:
    """Return the error that an event reports: `PromptTooLong` or `InvalidField`."""
    if event.num_prompt_tokens:
        error = PromptTooLong(event.num_prompt_tokens, event.num_context_tokens)
        error.message = event.message
        return error
    return InvalidField(event.message, param=event.param)
