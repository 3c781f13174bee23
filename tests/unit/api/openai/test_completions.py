"""`/v1/completions`: a text is continued, whole or as a stream."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llmd.engine.engine import Request
from llmd.engine.protocol import (
    CallDelta,
    Candidate,
    Delta,
    Part,
    Prompt,
    Reasoning,
    TextPrompt,
    TokenLogprob,
    TokenPrompt,
)
from llmd.errors import EngineDied
from tests.support.answers import is_free
from tests.support.fake_engine import Event, begins, done, says
from tests.support.service import Service

PATH = "/v1/completions"
ASK: dict[str, Any] = {"model": "default", "prompt": "Once"}


def _text(text: str) -> TextPrompt:
    return TextPrompt([Part(text=text, literal=True)])


def _asked(service: Service, **fields: Any) -> list[Request]:
    """Return the requests that reach the engine for a body with these fields."""
    before = len(service.engine.requests)
    result = service.ask("POST", PATH, ASK | fields)
    assert result.status_code == 200, result.text
    return service.engine.requests[before:]


def _choices(service: Service, **fields: Any) -> list[dict[str, Any]]:
    choices: list[dict[str, Any]] = service.ask("POST", PATH, ASK | fields).json["choices"]
    return choices


def _chunks(service: Service, **fields: Any) -> list[dict[str, Any]]:
    result = service.ask("POST", PATH, ASK | {"stream": True} | fields)
    assert result.status_code == 200
    *events, last, rest = result.content.split(b"\n\n")
    assert (last, rest) == (b"data: [DONE]", b"")
    return [
        msgspec.json.decode(event.removeprefix(b"data: "))
        for event in events
        if not event.startswith(b":")
    ]


def _logprobs(*texts: bytes) -> list[TokenLogprob]:
    """Return log probabilities of tokens with these texts, each with itself as the most likely."""
    chosen = [Candidate(n, text, -0.5 * n) for n, text in enumerate(texts, 1)]
    return [TokenLogprob(candidate, [candidate]) for candidate in chosen]


def test_a_reply_has_every_field_of_the_contract(service: Service) -> None:
    """The reply has all fields that OpenAI's clients read, and no others."""
    reply = service.ask("POST", PATH, ASK).json
    assert reply.pop("id").startswith("cmpl-")
    assert isinstance(reply.pop("created"), int)
    assert reply.pop("system_fingerprint").startswith("b")
    assert reply == {
        "object": "text_completion",
        "model": "default",
        "choices": [{"text": "Hello you", "index": 0, "finish_reason": "stop", "logprobs": None}],
        "usage": {
            "prompt_tokens": 11,
            "completion_tokens": 2,
            "total_tokens": 13,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    }
    assert is_free(service)


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ("Once", [_text("Once")]),
        (["Once"], [_text("Once")]),
        ([1, 2, 0], [TokenPrompt([1, 2, 0])]),
        ([[1, 2]], [TokenPrompt([1, 2])]),
        (["a", "b"], [_text("a"), _text("b")]),
        ([[1], [2, 3]], [TokenPrompt([1]), TokenPrompt([2, 3])]),
        (["a", [1]], [_text("a"), TokenPrompt([1])]),
    ],
)
def test_a_prompt_reaches_the_model_unchanged(
    service: Service, given: object, prompts: list[Prompt]
) -> None:
    """A prompt reaches the model unchanged, and may spell special tokens."""
    assert [request.prompt for request in _asked(service, prompt=given)] == prompts


def test_only_the_sampling_of_a_profile_applies(service: Service) -> None:
    """A profile's sampling applies, but not its system text, its template or its stop strings."""
    service.put_profile("p", system="Be kind.", template="USER: {input}", temperature=1.5)
    [request] = _asked(service, model="p", seed=5)
    assert request.prompt == _text("Once")
    assert (request.sampling.temperature, request.sampling.seed, request.stop) == (1.5, 5, [])


def test_the_user_names_the_conversation(service: Service) -> None:
    """The field `user` names the conversation, as in a chat."""
    assert _asked(service, user="ann")[0].session == "~ann"


def test_several_prompts_are_answered_one_after_another(service: Service) -> None:
    """Several prompts run one after another; each has a choice, and their tokens are added up."""
    answers = iter([says("one"), says("two", "!", reason="length")])

    def script(request: Request) -> list[Event]:
        return next(answers)(request)

    service.engine.script = script
    reply = service.ask("POST", PATH, ASK | {"prompt": ["a", "b"]}).json
    assert [(choice["index"], choice["text"]) for choice in reply["choices"]] == [
        (0, "one"),
        (1, "two!"),
    ]
    assert [choice["finish_reason"] for choice in reply["choices"]] == ["stop", "length"]
    assert reply["usage"] == {
        "prompt_tokens": 22,
        "completion_tokens": 3,
        "total_tokens": 25,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    assert is_free(service)


@pytest.mark.parametrize("name", ["Idempotency-Key", "X-Stainless-Retry-Count"])
def test_several_prompts_that_are_repeated_get_the_same_answers(
    service: Service, name: str
) -> None:
    """When a request with several prompts is repeated, each prompt gets its own answer again."""

    def script(request: Request) -> list[Event]:
        return says(f"{len(service.engine.requests)}")(request)

    service.engine.script = script
    body = ASK | {"prompt": ["a", "b"]}
    first, again = [service.ask("POST", PATH, body, headers={name: "1"}) for _ in range(2)]
    assert first.status_code == 200, first.text
    assert [choice["text"] for choice in first.json["choices"]] == ["1", "2"]
    assert again.json == first.json
    assert len(service.engine.requests) == 2


def test_echo_repeats_the_prompt(service: Service) -> None:
    """With `echo` each choice begins with its prompt, unless the prompt is tokens."""
    choices = _choices(service, prompt=["a", [1], "c"], echo=True)
    assert [choice["text"] for choice in choices] == ["aHello you", "Hello you", "cHello you"]


@pytest.mark.parametrize(
    ("given", "number"), [(None, None), (False, None), (True, 1), (0, 0), (1, 1), (20, 20)]
)
def test_log_probabilities_are_computed_on_request(
    service: Service, given: object, number: int | None
) -> None:
    """Log probabilities are computed only on request; 0 requests those of the chosen tokens."""
    assert _asked(service, logprobs=given)[0].num_logprobs == number


def test_log_probabilities_are_lists_with_one_entry_per_token(service: Service) -> None:
    """Log probabilities are lists with one entry per token; offsets count an echoed prompt, too."""
    service.engine.script = begins(
        then=[Delta(0, "né", _logprobs(b"n", "é".encode())), Delta(0, "!", _logprobs(b"!")), done()]
    )
    [choice] = _choices(service, logprobs=1, echo=True)
    assert choice["text"] == "Oncené!"
    assert choice["logprobs"] == {
        "tokens": ["n", "é", "!"],
        "token_logprobs": [-0.5, -1.0, -0.5],
        "top_logprobs": [{"n": -0.5}, {"é": -1.0}, {"!": -0.5}],
        "text_offset": [4, 5, 6],
    }
    [choice] = _choices(service, logprobs=1)
    assert choice["logprobs"]["text_offset"] == [0, 1, 2]


def test_a_completion_has_neither_reasoning_nor_calls(service: Service) -> None:
    """Reasoning and tool calls are left out of a completion."""
    events: list[Event] = [Reasoning(0, "Hm"), CallDelta(id=0, index=0, name="f"), Delta(0, "a")]
    service.engine.script = begins(then=[*events, done()])
    assert _choices(service)[0]["text"] == "a"
    texts = [chunk["choices"][0]["text"] for chunk in _chunks(service)]
    assert texts == ["a", ""]


# Streams


def test_chunks_are_the_text_and_the_finish_reason(service: Service) -> None:
    """Chunks have the text, then the finish reason, with the same head and one choice each."""
    chunks = _chunks(service)
    choices = [chunk.pop("choices") for chunk in chunks]
    head = chunks[0]
    assert chunks == [head] * 3
    assert head.pop("id").startswith("cmpl-")
    assert isinstance(head.pop("created"), int)
    assert head.pop("system_fingerprint").startswith("b")
    assert head == {"object": "text_completion", "model": "default"}
    rest = {"index": 0, "logprobs": None}
    assert choices == [
        [rest | {"text": "Hello", "finish_reason": None}],
        [rest | {"text": " you", "finish_reason": None}],
        [rest | {"text": "", "finish_reason": "stop"}],
    ]
    assert is_free(service)


def test_a_stream_with_echo_begins_with_the_prompt(service: Service) -> None:
    """A stream with `echo` begins with the prompt, and token offsets count from its end."""
    service.engine.script = begins(
        then=[Delta(0, "ab", _logprobs(b"a", b"b")), Delta(0, "c", _logprobs(b"c")), done()]
    )
    choices = [chunk["choices"][0] for chunk in _chunks(service, echo=True, logprobs=1)]
    assert [choice["text"] for choice in choices] == ["Once", "ab", "c", ""]
    assert [choice["logprobs"] and choice["logprobs"]["text_offset"] for choice in choices] == [
        None,
        [4, 5],
        [6],
        None,
    ]


def test_the_usage_is_sent_on_request(service: Service) -> None:
    """The usage comes in a last chunk without choices, and only on request."""
    *_, last = _chunks(service, stream_options={"include_usage": True})
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 13)
    assert all(chunk["choices"] and "usage" not in chunk for chunk in _chunks(service))


def test_an_error_ends_the_stream(service: Service) -> None:
    """An error is the last event of a stream: no `[DONE]` marks the answer as whole."""
    service.engine.script = begins("Hel", then=[EngineDied("the worker ended")])
    *_, last, rest = service.ask("POST", PATH, ASK | {"stream": True}).content.split(b"\n\n")
    assert msgspec.json.decode(last.removeprefix(b"data: "))["error"]["code"] == "engine_died"
    assert rest == b""
    assert is_free(service)


# Refusals


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [""]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [1, [2]]}, "prompt"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [2**31]}, "prompt[0]"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": ["a", "b"], "stream": True}, "prompt"),
        ({"suffix": "The end."}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"n": 2}, "n"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"messages": []}, "messages"),
    ],
)
def test_an_invalid_field_is_named(service: Service, fields: dict[str, Any], param: str) -> None:
    """An invalid field is a 400 that names the field, before the engine is asked."""
    result = service.ask("POST", PATH, ASK | fields)
    assert service.code(result) == (400, "invalid_field")
    assert result.json["error"]["param"] == param
    assert service.engine.requests == []


def test_default_values_are_accepted(service: Service) -> None:
    """OpenAI's default values, which clients send, are accepted."""
    _asked(service, n=1, best_of=1, suffix="", echo=False, logprobs=None, stream=False, user="")
