from __future__ import annotations

import pytest

from llmd.engine.protocol import refusal_error, refusal_event
from llmd.errors import InvalidField, LlmdError, PromptTooLong


@pytest.mark.parametrize(
    "error",
    [
        PromptTooLong(90, 80),
        PromptTooLong(90, 80, is_exact=False),
        InvalidField("the stop string is empty", param="stop"),
    ],
)
def test_an_error_crosses_the_socket_unchanged(error: LlmdError) -> None:
    """The daemon raises the worker's error with its class, message and field."""
    received = refusal_error(refusal_event(7, error))
    assert type(received) is type(error)
    assert (received.message, received.param) == (error.message, error.param)


def test_numbers_of_tokens_cross_the_socket() -> None:
    """A prompt that is too long keeps both numbers of tokens."""
    received = refusal_error(refusal_event(7, PromptTooLong(90, 80)))
    assert isinstance(received, PromptTooLong)
    assert (received.num_prompt_tokens, received.num_context_tokens) == (90, 80)


def test_an_error_without_a_field_names_the_prompt() -> None:
    """The prompt is the field unless the error or the caller names another one."""
    error = InvalidField("no")
    assert refusal_event(7, error).param == "prompt"
    assert refusal_event(7, error, param="input").param == "input"
