from __future__ import annotations

import pytest

from llmd.chat.engine_request import build_engine_request
from llmd.engine.engine import Request
from llmd.engine.protocol import Prompt, TokenPrompt
from llmd.store.profiles import Profile

PROMPT: Prompt = TokenPrompt([1])


def _build(profile: Profile, *, has_default_stop: bool = True) -> Request:
    return build_engine_request(
        profile, PROMPT, owner="ann", session="1", has_default_stop=has_default_stop
    )


def test_sampling_and_limits_come_from_the_profile() -> None:
    """Each sampling field and each limit of the profile is in the request."""
    request = _build(
        Profile(
            temperature=0.1,
            top_p=0.2,
            top_k=3,
            min_p=0.4,
            repeat_penalty=1.5,
            presence_penalty=0.6,
            frequency_penalty=0.7,
            seed=8,
            max_tokens=9,
            n_ctx=256,
        )
    )
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.1, 0.2, 3)
    assert (sampling.min_p, sampling.repeat_penalty) == (0.4, 1.5)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.6, 0.7)
    assert (sampling.seed, sampling.logit_bias) == (8, {})
    assert (request.max_tokens, request.max_context_tokens) == (9, 256)
    assert (request.owner, request.session, request.prompt) == ("ann", "1", PROMPT)


def test_a_profile_without_a_seed_gets_a_random_one() -> None:
    """Two requests have different seeds, and 0 is a seed like any other."""
    first, second = (_build(Profile()).sampling.seed for _ in range(2))
    assert first != second
    assert _build(Profile(seed=0)).sampling.seed == 0


@pytest.mark.parametrize(
    ("profile", "has_default_stop", "stop"),
    [
        (Profile(template="PROMPT: {input}"), True, ["PROMPT:", "Human:"]),
        (Profile(template="PROMPT: {input}"), False, []),
        (Profile(template="PROMPT: {input}", stop=("END",)), True, ["END"]),
        (Profile(stop=("END",)), False, ["END"]),
        (Profile(), True, []),
    ],
)
def test_default_stop_strings_are_for_profiles_without_any(
    profile: Profile, has_default_stop: bool, stop: list[str]
) -> None:
    """The stop strings of the template are used only if they are wanted and there are no others."""
    assert _build(profile, has_default_stop=has_default_stop).stop == stop
