"""`/v1/chat/completions`: how the fields of a body set sampling and the length of the answer."""

from __future__ import annotations

from typing import Any

import pytest

from llmd.engine.engine import Request
from llmd.engine.protocol import Sampling
from llmd.store.profiles import Profile
from tests.support.service import Service

HI: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}


def _asked(service: Service, **fields: Any) -> Request:
    """Return the request that reaches the engine for a body with these fields."""
    result = service.ask("POST", "/v1/chat/completions", HI | fields)
    assert result.status_code == 200, result.text
    return service.engine.requests[-1]


def test_every_sampling_field_reaches_the_engine(service: Service) -> None:
    """All sampling fields of OpenAI's API and of llama.cpp's reach the engine."""
    request = _asked(
        service,
        temperature=0,
        top_p=0.5,
        top_k=2,
        min_p=0.25,
        presence_penalty=-2,
        frequency_penalty=1.5,
        repeat_penalty=1.25,
        seed=9,
        max_tokens=3,
        stop=["END", "STOP"],
        logit_bias={"5": -100, "123456789": 1.5},
    )
    assert request.sampling == Sampling(
        temperature=0.0,
        top_p=0.5,
        top_k=2,
        min_p=0.25,
        presence_penalty=-2.0,
        frequency_penalty=1.5,
        repeat_penalty=1.25,
        seed=9,
        logit_bias={5: -100.0, 123456789: 1.5},
    )
    assert (request.max_tokens, request.stop) == (3, ["END", "STOP"])
    assert request.num_turns == 0


def test_the_profile_sets_fields_that_are_left_out_or_null(service: Service) -> None:
    """Fields that are left out or null have the profile's values, the context size included."""
    service.put_profile(
        "p", temperature=1.5, top_k=7, seed=4, max_tokens=77, n_ctx=128, stop=("END",)
    )
    names = ["temperature", "top_p", "top_k", "seed", "max_tokens", "stop", "stream", "n"]
    for fields in ({}, dict.fromkeys(names)):
        request = _asked(service, model="p", **fields)
        sampling = request.sampling
        assert (sampling.temperature, sampling.top_k, sampling.seed) == (1.5, 7, 4)
        assert sampling.top_p == Profile().top_p
        assert (request.max_tokens, request.max_context_tokens) == (77, 128)
        assert request.stop == ["END"]


def test_a_profile_is_not_changed_by_a_request(service: Service) -> None:
    """The fields of a request apply to its answer only: the profile does not change."""
    _asked(service, temperature=0, logit_bias={"5": 1})
    sampling = _asked(service).sampling
    assert (sampling.temperature, sampling.logit_bias) == (Profile().temperature, {})


@pytest.mark.parametrize("given", [0, 3, 2**32 - 2, 2**32 - 1, 2**63 - 1])
def test_a_seed_of_any_size_is_repeatable(service: Service, given: int) -> None:
    """A seed of any size maps to the same 32-bit seed each time; a small one is used unchanged."""
    seed = _asked(service, seed=given).sampling.seed
    assert 0 <= seed <= 2**32 - 2
    assert _asked(service, seed=given).sampling.seed == seed
    if given <= 2**32 - 2:
        assert seed == given


@pytest.mark.parametrize("seed", [-1, -(2**63)])
def test_a_negative_seed_is_random(service: Service, seed: int) -> None:
    """A negative seed means a random one."""
    seeds = [_asked(service, seed=seed).sampling.seed for _ in range(2)]
    assert seeds[0] != seeds[1]
    assert all(0 <= seed <= 2**32 - 2 for seed in seeds)


def test_a_top_p_of_zero_means_the_most_likely_token(service: Service) -> None:
    """A `top_p` of 0 becomes a tiny value, which leaves the most likely token."""
    assert 0 < _asked(service, top_p=0).sampling.top_p < 0.001


def test_a_top_k_of_minus_one_is_off(service: Service) -> None:
    """A `top_k` of -1 switches it off, as with other servers; the engine's value for that is 0."""
    assert _asked(service, top_k=-1).sampling.top_k == 0


def test_the_repetition_penalty_has_two_names(service: Service) -> None:
    """The repetition penalty has two names; llama.cpp's wins if both are given."""
    assert _asked(service, repetition_penalty=1.5).sampling.repeat_penalty == 1.5
    both = _asked(service, repetition_penalty=1.5, repeat_penalty=2)
    assert both.sampling.repeat_penalty == 2


@pytest.mark.parametrize(
    ("fields", "number"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 3, "max_completion_tokens": 7}, 7),
        ({"max_tokens": -1}, 1_000_000),
        ({"max_completion_tokens": -1}, 1_000_000),
        ({"max_tokens": 3, "max_completion_tokens": -1}, 1_000_000),
        ({"max_tokens": -1, "max_completion_tokens": 7}, 7),
        ({"max_tokens": None, "max_completion_tokens": None}, 512),
    ],
)
def test_the_token_limit_has_two_names(
    service: Service, fields: dict[str, Any], number: int
) -> None:
    """The newer name of the token limit wins over the older one; -1 means no limit."""
    assert _asked(service, **fields).max_tokens == number


@pytest.mark.parametrize(("given", "stop"), [("END", ["END"]), (["a", "b"], ["a", "b"]), ([], [])])
def test_stop_strings_replace_the_profiles(
    service: Service, given: str | list[str], stop: list[str]
) -> None:
    """A request's stop strings replace the profile's; an empty list removes them."""
    service.put_profile("p", stop=("HALT",))
    assert _asked(service, model="p", stop=given).stop == stop


def test_fields_without_effect_are_ignored(service: Service) -> None:
    """Fields that clients send and that have no effect are ignored."""
    before = _asked(service, seed=1)
    ignored: dict[str, Any] = {
        "metadata": {"a": "b"},
        "modalities": ["text"],
        "prediction": {"type": "content", "content": "x"},
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "safety_identifier": "s",
        "service_tier": "auto",
        "store": True,
        "verbosity": "low",
        "cache_prompt": True,
        "id_slot": -1,
        "parse_tool_calls": True,
        "reasoning_format": "auto",
        "repeat_last_n": 64,
        "return_progress": True,
        "samplers": ["top_k"],
        "timings_per_token": True,
        "typical_p": 1,
        "keep_alive": "5m",
        "num_ctx": 2048,
        "think": False,
    }
    assert _asked(service, seed=1, **ignored) == before
    assert _asked(service, seed=1, **dict.fromkeys(ignored)) == before
