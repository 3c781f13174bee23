"""The influence of a profile on an answer, and the fields of a request that override it."""

from __future__ import annotations

import pytest

from llmd.engine.protocol import TextPrompt
from llmd.errors import (
    Conflict,
    UnknownProfile,
)
from tests.support.answers import finish, is_free, start
from tests.support.service import Service


def test_a_profile_for_another_model_is_a_conflict(service: Service) -> None:
    """A profile for a model that is not loaded is refused, and no other model answers."""
    service.put_profile("big", model="big.gguf")
    with pytest.raises(Conflict) as refused:
        start(service, profile="big")
    assert refused.value.param == "profile"
    assert service.engine.requests == []
    assert is_free(service)


def test_a_profile_for_the_loaded_model_is_taken(service: Service) -> None:
    """A profile may be named although another one is selected."""
    service.put_profile("small", model="tiny.gguf", temperature=0.25)
    assert finish(start(service, profile="small")).profile == "small"
    assert service.engine.requests[0].sampling.temperature == 0.25


def test_an_unknown_profile_is_refused(service: Service) -> None:
    """An unknown profile is refused, and the stream is free again."""
    with pytest.raises(UnknownProfile):
        start(service, profile="none")
    assert is_free(service)


def test_the_selected_profile_serves_those_who_name_none(service: Service) -> None:
    """The selected profile is used even with another model, since an admin chose both."""
    service.put_profile("chosen", model="other.gguf", top_k=3)
    service.settings.select(model="tiny.gguf", profile="chosen", actor="cli", now=0)
    assert finish(start(service)).profile == "chosen"
    assert service.engine.requests[0].sampling.top_k == 3


def test_a_profile_with_a_template_and_no_stop_gets_the_labels_as_stops(service: Service) -> None:
    """Stop strings of the profile or the request replace those of the template."""
    service.put_profile("t", template="{chat_history}\nPROMPT: {input}\nANSWER:")
    service.put_profile("s", template="PROMPT: {input}", stop=("END",))
    finish(start(service, profile="t"))
    finish(start(service, profile="t", stop="X"))
    finish(start(service, profile="s"))
    finish(start(service, profile="s", stop=["Y", "Z"]))
    requests = service.engine.requests
    assert [request.stop for request in requests] == [
        ["PROMPT:", "Human:"],
        ["X"],
        ["END"],
        ["Y", "Z"],
    ]
    assert isinstance(requests[0].prompt, TextPrompt)


def test_what_a_request_names_overrides_its_profile_for_this_once(service: Service) -> None:
    """Each sampling field of a request overrides the profile, even if it is zero."""
    service.put_profile("p", temperature=1.5, top_k=9, max_tokens=5, seed=1, n_ctx=128)
    finish(
        start(
            service,
            profile="p",
            temperature=0.0,
            top_p=0.5,
            top_k=0,
            min_p=0.0,
            repeat_penalty=1.1,
            seed=0,
            max_tokens=3,
        )
    )
    finish(start(service, profile="p"))
    first, second = service.engine.requests
    assert (first.sampling.temperature, first.sampling.top_p, first.sampling.top_k) == (0, 0.5, 0)
    assert (first.sampling.min_p, first.sampling.repeat_penalty, first.sampling.seed) == (
        0,
        1.1,
        0,
    )
    assert (first.max_tokens, first.max_context_tokens) == (3, 128)
    assert (second.sampling.temperature, second.sampling.top_k, second.max_tokens) == (1.5, 9, 5)
    assert second.sampling.seed == 1


def test_an_empty_list_of_stops_switches_the_default_ones_off(service: Service) -> None:
    """An empty list of stop strings switches off those of the template."""
    service.put_profile("seed", template="{chat_history}\nPROMPT: {input}\nAI:")
    finish(start(service, profile="seed"))
    finish(start(service, profile="seed", stop=[]))
    assert [request.stop for request in service.engine.requests] == [["PROMPT:", "Human:"], []]


def test_a_template_without_history_has_no_old_turns(service: Service) -> None:
    """A template without history has no old turns in its prompt, and the answer says so."""
    service.put_profile("bare", template="Q: {input}\nA:")
    finish(start(service, profile="bare"))
    finish(start(service, profile="bare"))
    assert service.engine.requests[1].num_turns == 0
