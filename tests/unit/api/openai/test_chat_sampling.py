"""`/v1/chat/completions`: how the tokens of an answer are chosen, and how many."""

from __future__ import annotations

from typing import Any

import pytest

from llmd.engine.engine import Request
from llmd.engine.protocol import Sampling
from llmd.store.profiles import Profile
from tests.support.service import Service

HI: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}


def _asked(service: Service, **fields: Any) -> Request:
    """Return what the engine is asked for a body with these fields."""
    result = service.ask("POST", "/v1/chat/completions", HI | fields)
    assert result.status_code == 200, result.text
    return service.engine.requests[-1]


def test_every_field_of_sampling_reaches_the_engine(service: Service) -> None:
    """By the names of OpenAI's API and of llama.cpp's."""
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


def test_what_is_left_out_or_null_is_the_profiles(service: Service) -> None:
    """All of it, the context too."""
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


def test_a_profile_is_not_changed_by_who_asks(service: Service) -> None:
    """The fields hold for one answer."""
    _asked(service, temperature=0, logit_bias={"5": 1})
    sampling = _asked(service).sampling
    assert (sampling.temperature, sampling.logit_bias) == (Profile().temperature, {})


@pytest.mark.parametrize("given", [0, 3, 2**32 - 2, 2**32 - 1, 2**63 - 1])
def test_a_seed_of_any_size_gives_the_same_answer_again(service: Service, given: int) -> None:
    """A small one is taken as it is; the engine knows none of more than 32 bits."""
    seed = _asked(service, seed=given).sampling.seed
    assert 0 <= seed <= 2**32 - 2
    assert _asked(service, seed=given).sampling.seed == seed
    if given <= 2**32 - 2:
        assert seed == given


@pytest.mark.parametrize("seed", [-1, -(2**63)])
def test_a_seed_below_zero_is_any(service: Service, seed: int) -> None:
    """As if there were none."""
    seeds = [_asked(service, seed=seed).sampling.seed for _ in range(2)]
    assert seeds[0] != seeds[1]
    assert all(0 <= seed <= 2**32 - 2 for seed in seeds)


def test_a_top_p_of_zero_means_the_likeliest_token(service: Service) -> None:
    """Nothing would be left of 0; a profile knows none either."""
    assert 0 < _asked(service, top_p=0).sampling.top_p < 0.001


def test_a_top_k_of_minus_one_is_off(service: Service) -> None:
    """As with other servers; here that is 0."""
    assert _asked(service, top_k=-1).sampling.top_k == 0


def test_a_penalty_for_repetition_goes_by_two_names(service: Service) -> None:
    """llama.cpp's counts if both are there."""
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
def test_an_answer_has_no_more_tokens_than_asked_for(
    service: Service, fields: dict[str, Any], number: int
) -> None:
    """The newer name counts before the older; -1 is as many as there is room for."""
    assert _asked(service, **fields).max_tokens == number


@pytest.mark.parametrize(("given", "stop"), [("END", ["END"]), (["a", "b"], ["a", "b"]), ([], [])])
def test_an_answer_stops_where_the_client_says(
    service: Service, given: str | list[str], stop: list[str]
) -> None:
    """An empty list switches the profile's own off."""
    service.put_profile("p", stop=("HALT",))
    assert _asked(service, model="p", stop=given).stop == stop


def test_fields_that_change_nothing_are_passed_over(service: Service) -> None:
    """Clients send them whether they mean something here or not."""
    before = _asked(service, seed=1)
    ignored: dict[str, Any] = {
        "metadata": {"a": "b"},
        "modalities": ["text"],
        "prediction": {"type": "content", "content": "x"},
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "reasoning_effort": "low",
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
