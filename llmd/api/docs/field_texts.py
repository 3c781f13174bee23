"""Texts and JSON Schema for fields of structs that are defined outside of the API.

Those structs know nothing of HTTP, and some of their checks are not part of their types.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llmd.api.route import JsonSchema
from llmd.chat.answer_request import AnswerRequest
from llmd.store.profiles import Profile

FieldTexts = dict[str, JsonSchema]
"""The description of each field, with the JSON Schema that its type does not have."""

_NO_EXAMPLE: list[Any] = []
"""The absence of an example. None cannot stand for it, because it may be one."""


def _field(description: str, example: Any = _NO_EXAMPLE, **schema: Any) -> JsonSchema:
    examples = {} if example is _NO_EXAMPLE else {"examples": [example]}
    return {"description": description} | schema | examples


_SAMPLING_TEXTS = {
    "max_tokens": "The maximum number of tokens in the answer.",
    "temperature": "The randomness of the choice of tokens; 0: always the likeliest.",
    "top_p": "Choose among the likeliest tokens that together have this probability.",
    "top_k": "Choose among this number of the likeliest tokens; 0: among all.",
    "min_p": "Leave out tokens below this fraction of the likeliest token's probability.",
    "repeat_penalty": "Makes tokens that occurred before less likely; 1: no effect.",
    "presence_penalty": "Makes a token less likely once it has occurred; 0: no effect.",
    "frequency_penalty": "Makes a token less likely each time it occurs; 0: no effect.",
    "seed": "The same request with the same seed gets the same answer.",
}

PROFILE_TEXTS: FieldTexts = {name: _field(text) for name, text in _SAMPLING_TEXTS.items()} | {
    "model": _field(
        "The GGUF file that the profile is for; empty: any that is loaded.",
        pattern=r"^(|[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*\.gguf)$",
    ),
    "system": _field(
        "The system message, for the model's own chat template.", "Answer in one short sentence."
    ),
    "template": _field(
        "The text of the prompt, with {input} once and optionally {chat_history}. Other braces "
        "have no meaning. null: the model's own chat template.",
        pattern=r"\{input\}",
    ),
    "human_label": _field(
        "The word before the user's lines of {chat_history}.", pattern=r"^[^\r\n]+$"
    ),
    "ai_label": _field(
        "The word before the model's lines of {chat_history}.", pattern=r"^[^\r\n]+$"
    ),
    "history_turns": _field("The maximum number of earlier turns in the prompt."),
    "n_ctx": _field("The number of context tokens to use, if less than the model has."),
    "temperature": _field(_SAMPLING_TEXTS["temperature"], 0.2),
    "seed": _field(f"{_SAMPLING_TEXTS['seed']} null: a new one each time."),
    "stop": _field(
        "Texts that end the answer. If there are none, an answer with a template ends at the label "
        "before {input} on its line, and at `Human:`."
    ),
}


def _bounds(name: str) -> JsonSchema:
    """Return the bounds of a field of `Profile`."""
    schema = _PROFILE_PROPERTIES[name]
    schema = schema.get("anyOf", [schema])[0]
    return {key: value for key, value in schema.items() if key not in {"type", "default"}}


_PROFILE_PROPERTIES = msgspec.json.schema_components([Profile])[1]["Profile"]["properties"]

ANSWER_TEXTS: FieldTexts = {
    "prompt": _field("What to answer.", "What is the capital of France?", pattern=r"\S"),
    "session_id": _field(
        'A whole number, or 1 to 64 of A-Z a-z 0-9 . _ -; 1 and "1" are the same. Without an id '
        "nothing is stored. An unknown id begins a session.",
        1,
        minimum=0,
        pattern="^[A-Za-z0-9._-]{1,64}$",
    ),
    "profile": _field("The name of a profile. Default: the selected one."),
    "stream": _field("Answer with server-sent events."),
    "stop": _field(
        "A text that ends the answer, or a list of them. An empty list also turns off the "
        "defaults of a template. null: the profile's.",
        minLength=1,
        maxLength=128,
        maxItems=8,
        items={"type": "string", "minLength": 1, "maxLength": 128},
    ),
} | {
    name: _field(f"{text} null: the profile's.", **_bounds(name))
    for name, text in _SAMPLING_TEXTS.items()
}

FIELD_TEXTS: dict[type, FieldTexts] = {AnswerRequest: ANSWER_TEXTS, Profile: PROFILE_TEXTS}
"""The texts of each struct."""
