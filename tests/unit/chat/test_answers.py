"""Answers from the request to the stored turn."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from llmd.chat.answer_request import AnswerRequest
from llmd.engine.protocol import ChatPrompt, Delta, Reasoning
from llmd.errors import (
    InvalidField,
    UnknownSession,
)
from llmd.store.sessions import NewTurn
from tests.support.answers import finish, is_free, start, turns
from tests.support.fake_engine import begins, done, says
from tests.support.service import Background, Service, until
from tests.unit.conftest import MakeService


def test_an_answer_tells_its_text_its_numbers_and_where_it_was_kept(service: Service) -> None:
    """Every field of the result is taken from the events of the engine."""
    result = finish(start(service, seed=7))
    assert result.result == "Hello you"
    assert (result.session_id, result.profile, result.model) == ("1", "default", "tiny.gguf")
    usage = result.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (11, 2, 13)
    assert usage.prompt_tokens_details.cached_tokens == 4
    assert (result.finish_reason, result.turns_in_prompt, result.seed) == ("stop", 0, 7)
    timings = result.timings
    assert (timings.queue_ms, timings.prefill_ms, timings.decode_ms) == (1.0, 20.0, 30.0)


def test_the_turn_is_stored_before_the_end_of_the_answer_is_seen(service: Service) -> None:
    """When a result is visible, its turn is stored."""
    answer = start(service)
    seen = [next(answer), next(answer)]
    assert seen == ["Hello", " you"]
    assert turns(service) == []
    assert answer.result is None
    with pytest.raises(StopIteration):
        next(answer)
    [turn] = turns(service)
    assert (turn.user, turn.assistant, turn.finish_reason) == ("hi", "Hello you", "stop")
    assert (turn.profile, turn.profile_revision, turn.model) == ("default", 1, "tiny.gguf")
    assert (turn.num_prompt_tokens, turn.num_cached_tokens, turn.num_completion_tokens) == (
        11,
        4,
        2,
    )
    assert turn.seed == service.engine.requests[0].sampling.seed
    answer.close()
    assert is_free(service)


def test_a_thought_is_stored_with_its_turn_and_passed_on(service: Service) -> None:
    """The thought of an answer is no part of its result, and is in the next prompt."""
    service.engine.script = begins(then=[Reasoning(0, "Hm."), Delta(0, "Yes."), done()])
    assert finish(start(service)).result == "Yes."
    [turn] = turns(service)
    assert (turn.assistant, turn.reasoning) == ("Yes.", "Hm.")
    finish(start(service))
    prompt = service.engine.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert [message.reasoning for message in prompt.messages] == ["", "Hm.", ""]


def test_an_answer_without_a_session_is_stored_nowhere(service: Service) -> None:
    """Without a session, nothing is stored and the result names no session."""
    result = finish(start(service, session_id=None))
    assert result.session_id is None
    assert service.sessions.count() == 0


def test_requests_of_a_session_see_the_turn_before_them(service: Service) -> None:
    """Two concurrent requests of a session run one after the other."""
    service.engine.script = begins()
    first = start(service, prompt="one")
    second = Background(lambda: start(service, prompt="two"))
    until(lambda: service.admission.num_queued == 1)
    service.engine.script = says("b")
    for event in (Delta(0, "a"), done()):
        service.engine.generations[0].put(event)
    finish(first)
    finish(second.wait())
    prompt = service.engine.requests[1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert [message.content for message in prompt.messages] == ["one", "a", "two"]


def test_the_prompt_holds_the_last_turns_of_the_window(service: Service) -> None:
    """The prompt has at most five turns, old ones go in threes, and the store keeps all."""
    prompts, told = [], []
    for number in range(8):
        told.append(finish(start(service, prompt=f"p{number}")).turns_in_prompt)
        prompt = service.engine.requests[-1].prompt
        assert isinstance(prompt, ChatPrompt)
        prompts.append([at.content for at in prompt.messages if at.role == "user"])
        assert service.engine.requests[-1].num_turns == told[-1]
    assert told == [0, 1, 2, 3, 4, 5, 3, 4]
    assert prompts[6] == ["p3", "p4", "p5", "p6"]
    assert prompts[7] == ["p3", "p4", "p5", "p6", "p7"]
    assert len(turns(service)) == 8


def test_a_seed_is_chosen_told_and_stored_when_none_is_named(service: Service) -> None:
    """The random seed is in the result and in the turn, so that the answer can be repeated."""
    results = [finish(start(service)) for _ in range(2)]
    used = [request.sampling.seed for request in service.engine.requests]
    assert [result.seed for result in results] == used == [turn.seed for turn in turns(service)]
    assert used[0] != used[1]


def test_the_engine_learns_whose_request_it_is(service: Service) -> None:
    """What is computed is reused only within an owner."""
    finish(start(service, session_id=1))
    finish(start(service, session_id=None))
    assert [(request.owner, request.session) for request in service.engine.requests] == [
        (service.user_key.id, "1"),
        (service.user_key.id, ""),
    ]


@pytest.mark.parametrize("session", [-1, "", "a/b", "x" * 65, "é", True])
def test_a_bad_session_id_is_refused_before_anything(service: Service, session: object) -> None:
    """A request with an invalid session ID takes no stream."""
    with pytest.raises(InvalidField) as refused:
        start(service, session_id=session)
    assert refused.value.param == "session_id"
    assert is_free(service)


def test_iteration_gives_none_while_nothing_comes(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Iteration yields None regularly, so that the caller can check its client."""
    monkeypatch.setattr("llmd.chat.run.POLL_S", 0.001)
    service.engine.script = begins()
    answer = start(service)
    assert next(answer) is None
    answer.close()


def test_an_answer_cut_by_its_length_says_so(service: Service) -> None:
    """Both the result and the turn have the finish reason `length`."""
    service.engine.script = says("a", reason="length")
    assert finish(start(service)).finish_reason == "length"
    assert turns(service)[0].finish_reason == "length"


def test_an_answer_without_text_is_a_whole_answer(service: Service) -> None:
    """An empty answer is complete, so its turn is stored."""
    service.engine.script = says()
    assert finish(start(service)).result == ""
    assert [turn.assistant for turn in turns(service)] == [""]


def test_prompts_and_answers_are_logged_only_when_asked_for(
    make_service: MakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """Texts are logged only if `log_prompts` is set."""
    caplog.set_level(logging.DEBUG)
    for log_prompts in (False, True):
        service = make_service(log_prompts=log_prompts)
        service.engine.script = says("an apple")
        finish(start(service, prompt="what fruit"))
        assert ("what fruit" in caplog.text) is log_prompts
        assert ("an apple" in caplog.text) is log_prompts


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 2.01}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": 1.5}, "min_p"),
        ({"repeat_penalty": 0.0}, "repeat_penalty"),
        ({"seed": 2**32 - 1}, "seed"),
        ({"seed": -1}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["x"] * 9}, "stop"),
        ({"stop": ["x" * 129]}, "stop"),
        ({"prompt": " \n\t"}, "prompt"),
    ],
)
def test_values_that_no_profile_could_take_are_refused(fields: dict[str, Any], param: str) -> None:
    """Values that no profile allows are refused with the name of the field."""
    with pytest.raises(InvalidField) as refused:
        AnswerRequest(**({"prompt": "x"} | fields)).check()
    assert (refused.value.param or "").partition("[")[0] == param


def test_the_turns_of_another_key_are_never_in_the_prompt(service: Service) -> None:
    """Sessions of two keys with the same ID are different sessions."""
    service.sessions.append(
        service.other_key.id, "1", NewTurn(user="secret", assistant="s", created_at=0)
    )
    result = finish(start(service))
    prompt = service.engine.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert [message.content for message in prompt.messages] == ["hi"]
    assert result.turns_in_prompt == 0


def test_a_session_deleted_meanwhile_does_not_come_back(service: Service) -> None:
    """An answer in a session that was deleted ends in an error and stores nothing."""
    finish(start(service))
    answer = start(service)
    service.sessions.delete(service.user_key.id, "1")
    with pytest.raises(UnknownSession):
        list(answer)
    assert service.sessions.count() == 0
    assert is_free(service)
