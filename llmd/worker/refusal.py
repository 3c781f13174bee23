"""What the daemon is told of a request that cannot be served, or not to its end."""

from __future__ import annotations

from llmd.engine.protocol import Refused
from llmd.errors import LlmdError, PromptTooLong


def refusal(request_id: int, error: LlmdError, param: str | None = None) -> Refused:
    """Return the event of an error; `param` names the field in place of the error's own."""
    too_long = error if isinstance(error, PromptTooLong) else None
    return Refused(
        id=request_id,
        message=error.message,
        param=param or error.param or "prompt",
        num_prompt_tokens=too_long.num_prompt_tokens if too_long else 0,
        num_context_tokens=too_long.num_context_tokens if too_long else 0,
    )
