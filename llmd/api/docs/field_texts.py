"""What fields mean whose structs know nothing of HTTP, and what is checked of them elsewhere."""

from __future__ import annotations

from typing import Any

import msgspec

from llmd.api.route import JsonSchema
from llmd.chat.answer_request import AnswerRequest
from llmd.store.profiles import Profile

FieldTexts = dict[str, JsonSchema]
"""JSON Schema for each field, beside what its type says."""

_NO_EXAMPLE: list[Any] = []


def _field(description: str, example: Any = _NO_EXAMPLE, **schema: Any) -> JsonSchema:
    examples = {} if example is _NO_EXAMPLE else {"examples": [example]}
    return {"description": description} | schema | examples


_SAMPLING_TEXTS = {
    "max_tokens": "How many tokens the answer may have.",
    "temperature": "How freely tokens are chosen; 0: always the likeliest.",
    "top_p": "Choose among the likeliest tokens that together have this probability.",
    "top_k": "Choose among so many of the likeliest tokens; 0: among all.",
    "min_p": "Leave out tokens below this part of the likeliest one's probability.",
    "repeat_penalty": "How much less likely a token becomes that was there already; 1: not at all.",
    "presence_penalty": "How much less likely a token becomes once it was there; 0: not at all.",
    "frequency_penalty": "How much less likely a token becomes each time that it was there.",
    "seed": "The same seed with the same request gives the same answer.",
}

PROFILE_TEXTS: FieldTexts = {name: _field(text) for name, text in _SAMPLING_TEXTS.items()} | {
    "model": _field(
        "The GGUF file that it is for; empty: whichever is loaded.",
        pattern=r"^(|[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*\.gguf)$",
    ),
    "system": _field(
        "System text, for the model's own chat template.", "Answer in one short sentence."
    ),
    "template": _field(
        "A text with {input} once and, if wished, {chat_history}; every other brace is just a "
        "brace. null: the model's own chat template.",
        pattern=r"\{input\}",
    ),
    "human_label": _field(
        "The word before the user's lines of {chat_history}.", pattern=r"^[^\r\n]+$"
    ),
    "ai_label": _field(
        "The word before the model's lines of {chat_history}.", pattern=r"^[^\r\n]+$"
    ),
    "history_turns": _field("How many old turns go into the prompt at most."),
    "n_ctx": _field("Use less of the context than there is."),
    "temperature": _field(_SAMPLING_TEXTS["temperature"], 0.2),
    "seed": _field(f"{_SAMPLING_TEXTS['seed']} null: a new one each time."),
    "stop": _field(
        "Texts that end the answer. A template without any ends at the label before {input} on "
        "its line, and at `Human:`."
    ),
}


def _bounds(name: str) -> JsonSchema:
    """Return the bounds that a profile's field has."""
    schema = _PROFILE_PROPERTIES[name]
    schema = schema.get("anyOf", [schema])[0]
    return {key: value for key, value in schema.items() if key not in {"type", "default"}}


_PROFILE_PROPERTIES = msgspec.json.schema_components([Profile])[1]["Profile"]["properties"]

ANSWER_TEXTS: FieldTexts = {
    "prompt": _field("What to answer.", "What is the capital of France?", pattern=r"\S"),
    "session_id": _field(
        'A whole number, or 1 to 64 of A-Z a-z 0-9 . _ -; 1 and "1" are the same. Without it '
        "nothing is stored. An unknown id begins a session.",
        1,
        minimum=0,
        pattern="^[A-Za-z0-9._-]{1,64}$",
    ),
    "profile": _field("A profile's name; without it the selected one."),
    "stream": _field("Answer with server-sent events."),
    "stop": _field(
        "A text that ends the answer, or a list of such; an empty list switches a template's own "
        "off. null: the profile's.",
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
