"""`/v1/chat/completions`: the whole answer, and its errors."""

from __future__ import annotations

from typing import Any

import pytest

from llmd.engine.protocol import (
    CallDelta,
    Candidate,
    Delta,
    FinishReason,
    Reasoning,
    Refused,
    TokenLogprob,
)
from llmd.errors import EngineDied
from tests.support.answers import is_free
from tests.support.fake_engine import Event, begins, done, says
from tests.support.service import Service

PATH = "/v1/chat/completions"
HI: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}
CALLS: list[Event] = [
    CallDelta(id=0, index=0, name="weather"),
    CallDelta(id=0, index=0, arguments='{"city": '),
    CallDelta(id=0, index=0, arguments='"Köln"}'),
    CallDelta(id=0, index=1, name="now", arguments="{}"),
    done("tool_calls"),
]


def test_a_reply_has_every_field_of_the_contract(service: Service) -> None:
    """The reply has all fields that OpenAI's clients read, and no others."""
    result = service.ask("POST", PATH, HI)
    assert result.status_code == 200
    assert result.headers["content-type"] == "application/json"
    reply = result.json
    assert reply.pop("id").startswith("chatcmpl-")
    assert isinstance(reply.pop("created"), int)
    assert reply.pop("system_fingerprint").startswith("b")
    assert reply == {
        "object": "chat.completion",
        "model": "default",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello you", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 11,
            "completion_tokens": 2,
            "total_tokens": 13,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    }
    assert is_free(service)


def test_the_route_without_v1_is_the_same(service: Service) -> None:
    """The route also answers without `/v1`, for clients that are given the bare address."""
    reply = service.ask("POST", "/chat/completions", HI).json
    assert reply["choices"][0]["message"]["content"] == "Hello you"


def test_no_two_answers_have_the_same_id(service: Service) -> None:
    """Each answer has an id of its own, even to the same question."""
    ids = {service.ask("POST", PATH, HI).json["id"] for _ in range(3)}
    assert len(ids) == 3


def test_the_reply_names_the_model_as_the_request_did(service: Service) -> None:
    """The reply names the model as the request did, even if another profile answers."""
    assert service.ask("POST", PATH, HI | {"model": "tiny.gguf"}).json["model"] == "tiny.gguf"


@pytest.mark.parametrize(
    ("reason", "shown"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("cancelled", "stop")],
)
def test_the_finish_reason_is_one_that_clients_know(
    service: Service, reason: FinishReason, shown: str
) -> None:
    """The finish reason is one that clients know; a cancelled answer is shown as stopped."""
    service.engine.script = says("Hello", reason=reason)
    [choice] = service.ask("POST", PATH, HI).json["choices"]
    assert choice["finish_reason"] == shown


def test_an_empty_answer_is_an_empty_text(service: Service) -> None:
    """The content of an empty answer is an empty text; null is only for tool calls."""
    service.engine.script = says()
    [choice] = service.ask("POST", PATH, HI).json["choices"]
    assert choice["message"]["content"] == ""


def test_calls_come_whole_each_with_an_id_of_its_own(service: Service) -> None:
    """Tool calls have joined arguments and an id each, and the content is null."""
    service.engine.script = begins(then=CALLS)
    [choice] = service.ask("POST", PATH, HI).json["choices"]
    ids = [call.pop("id") for call in choice["message"]["tool_calls"]]
    assert len(set(ids)) == 2
    assert all(call_id.startswith("call_") for call_id in ids)
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}},
            {"type": "function", "function": {"name": "now", "arguments": "{}"}},
        ],
    }
    assert choice["finish_reason"] == "tool_calls"


def test_reasoning_text_and_calls_have_their_own_fields(service: Service) -> None:
    """Reasoning, text and tool calls each have a field of their own."""
    thoughts: list[Event] = [Reasoning(0, "Is it "), Reasoning(0, "warm?")]
    service.engine.script = begins(then=[*thoughts, Delta(0, "I look."), *CALLS])
    message = service.ask("POST", PATH, HI).json["choices"][0]["message"]
    assert message["reasoning_content"] == "Is it warm?"
    assert message["content"] == "I look."
    assert len(message["tool_calls"]) == 2


def _logprob(text: bytes, logprob: float, *top: Candidate) -> TokenLogprob:
    return TokenLogprob(Candidate(7, text, logprob), list(top))


def test_log_probabilities_come_with_the_bytes_of_each_token(service: Service) -> None:
    """Log probabilities have each token's exact bytes, since a token may be half a character."""
    top = Candidate(7, b"\xc3", -0.25), Candidate(8, b"e", -1.5)
    deltas: list[Event] = [
        Delta(0, "é", [_logprob(b"\xc3", -0.25, *top), _logprob(b"\xa9", -0.5)]),
        Delta(0, "", [_logprob(b"!", -2.0)]),
    ]
    service.engine.script = begins(then=[*deltas, done()])
    asked = HI | {"logprobs": True, "top_logprobs": 2}
    [choice] = service.ask("POST", PATH, asked).json["choices"]
    first = {"token": "\ufffd", "logprob": -0.25, "bytes": [0xC3]}
    other = {"token": "e", "logprob": -1.5, "bytes": [0x65]}
    assert choice["logprobs"] == {
        "content": [
            first | {"top_logprobs": [first, other]},
            {"token": "\ufffd", "logprob": -0.5, "bytes": [0xA9], "top_logprobs": []},
            {"token": "!", "logprob": -2.0, "bytes": [0x21], "top_logprobs": []},
        ],
        "refusal": None,
    }


def test_a_prompt_that_is_too_long_is_refused_with_numbers(service: Service) -> None:
    """A prompt that is too long is refused by OpenAI's code, with the numbers of tokens."""
    refused = Refused(id=0, message="too long", num_prompt_tokens=99, num_context_tokens=64)
    service.engine.script = lambda _request: [refused]
    result = service.ask("POST", PATH, HI)
    assert service.code(result) == (400, "context_length_exceeded")
    error = result.json["error"]
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (99, 64)
    assert is_free(service)


@pytest.mark.parametrize("texts", [(), ("Hel",)])
def test_a_grammar_that_fails_is_a_400(service: Service, texts: tuple[str, ...]) -> None:
    """A grammar that fails to compile, before or during the answer, is a 400."""
    refused = Refused(id=0, message="it cannot be kept", param="grammar")
    service.engine.script = begins(*texts, then=[refused])
    result = service.ask("POST", PATH, HI | {"grammar": "root ::= root"})
    assert service.code(result) == (400, "invalid_field")
    assert result.json["error"]["param"] == "grammar"


def test_a_worker_that_dies_is_a_503(service: Service) -> None:
    """If the worker dies, the reply is a 503 with Retry-After instead of half an answer."""
    service.engine.script = begins("Hel", then=[EngineDied("the worker ended")])
    result = service.ask("POST", PATH, HI)
    assert service.code(result) == (503, "engine_died")
    assert int(result.headers["retry-after"]) > 0
    assert is_free(service)


def test_nothing_of_a_chat_is_stored(service: Service) -> None:
    """A chat is not stored, so it works with a full disk."""
    service.db.is_full = True
    assert service.ask("POST", PATH, HI).status_code == 200
    assert service.sessions.count() == 0
