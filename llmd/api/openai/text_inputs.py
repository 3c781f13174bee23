"""The fields `prompt` and `input`: a text or its tokens, or several of them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from llmd.errors import InvalidField

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]

Inputs = str | list[str | TokenId | list[TokenId]]
"""A text, the tokens of a text, or a list of texts and token lists."""


def inputs_of(given: Inputs, name: str, max_inputs: int) -> list[str | list[int]]:
    """Return all inputs as a list.

    Raise `InvalidField` if there are none or too many, if one is empty, or if token ids stand
    beside texts or token lists.
    """
    if isinstance(given, str):
        inputs: list[str | list[int]] = [given]
    else:
        tokens = [item for item in given if isinstance(item, int)]
        inputs = [item for item in given if not isinstance(item, int)]
        if tokens and inputs:
            raise InvalidField(f"{name} mixes token ids with texts or token lists", param=name)
        if tokens:
            inputs = [tokens]
    if not 1 <= len(inputs) <= max_inputs:
        raise InvalidField(f"{name} must have 1 to {max_inputs} inputs", param=name)
    if not all(inputs):
        raise InvalidField(f"{name} must not be empty", param=name)
    return inputs
