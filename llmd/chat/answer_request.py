"""The request and the result of `POST /answer`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from llmd.chat.outcome import Timings, Usage
from llmd.engine.protocol import FinishReason
from llmd.errors import InvalidField
from llmd.store.profiles import Profile, read_profile


class AnswerRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A prompt, and values that override the profile for this request."""

    prompt: Annotated[str, Meta(min_length=1)]
    session_id: int | str | None = None
    profile: str | None = None
    stream: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None

    def applied_to(self, profile: Profile) -> Profile:
        """Return the profile with the values of this request. Raise `InvalidField`."""
        changes: dict[str, Any] = {
            name: value for name in _SAMPLING_FIELDS if (value := getattr(self, name)) is not None
        }
        if self.stop is not None:
            changes["stop"] = [self.stop] if isinstance(self.stop, str) else self.stop
        return read_profile(msgspec.to_builtins(profile) | changes) if changes else profile

    def check(self) -> None:
        """Raise `InvalidField` for values that no profile allows, before the request is queued."""
        self.applied_to(Profile())
        if not self.prompt.strip():
            raise InvalidField("prompt must contain more than white space", param="prompt")


_SAMPLING_FIELDS = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
)


class AnswerResult(Struct, frozen=True, kw_only=True):
    """A complete answer. Its text is in `result`, where clients of the older project read it."""

    result: str
    session_id: str | None
    profile: str
    model: str
    usage: Usage
    finish_reason: FinishReason
    turns_in_prompt: int
    seed: int
    timings: Timings
