"""The exceptions that OpenAI's client raises when llmd refuses a request or fails."""

from __future__ import annotations

import os
import signal
from typing import Any

import openai
import pytest
from openai import OpenAI

from llmd.auth import secret
from tests.clients.sdk import FRANCE, MODEL, STORY, ask, connect, messages
from tests.e2e.daemon import Daemon, Starter

pytestmark = pytest.mark.e2e


def _refused(client: OpenAI, **options: Any) -> openai.APIStatusError:
    """Return the error that a question with these options causes."""
    with pytest.raises(openai.APIStatusError) as raised:
        ask(client, options.pop("said", FRANCE), **options)
    return raised.value


def test_every_answer_has_the_id_of_its_request(client: OpenAI) -> None:
    """The client shows the request's id for answers and errors."""
    answer = client.chat.completions.create(model=MODEL, messages=messages(FRANCE), max_tokens=1)
    error = _refused(client, model="gpt-5")
    assert answer._request_id
    assert error.request_id
    assert answer._request_id != error.request_id


@pytest.mark.parametrize("key", ["wrong", secret.make().text], ids=["no key", "unknown key"])
def test_a_wrong_key_is_an_authentication_error(daemon: Daemon, key: str) -> None:
    """A wrong key is an authentication error with OpenAI's code, on every route."""
    stranger = connect(daemon, key)
    with pytest.raises(openai.AuthenticationError) as asked:
        ask(stranger, FRANCE)
    with pytest.raises(openai.AuthenticationError) as listed:
        stranger.models.list()
    assert asked.value.code == listed.value.code == "invalid_api_key"
    assert asked.value.type
    assert asked.value.request_id


def test_an_unknown_model_is_a_not_found_error(client: OpenAI) -> None:
    """An unknown model is a not-found error that names it."""
    error = _refused(client, model="gpt-5")
    assert isinstance(error, openai.NotFoundError)
    assert error.code == "model_not_found"
    assert "gpt-5" in error.message


def test_an_unknown_route_is_a_not_found_error(client: OpenAI) -> None:
    """An unknown route is a not-found error of the usual format."""
    with pytest.raises(openai.NotFoundError) as raised:
        client.images.generate(model=MODEL, prompt="A lighthouse.")
    assert raised.value.type
    assert raised.value.request_id


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("temperature", {"temperature": 3}),
        ("temperature", {"temperature": "warm"}),
        ("top_p", {"top_p": -1}),
        ("max_tokens", {"max_tokens": -5}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 1000}),
        ("logit_bias", {"logit_bias": {"sea": 1}}),
        ("no_such_field", {"extra_body": {"no_such_field": 1}}),
        ("tools", {"tools": [{"type": "function"}]}),
    ],
)
def test_an_invalid_field_is_a_bad_request_error(
    client: OpenAI, field: str, options: dict[str, Any]
) -> None:
    """An invalid field is a bad-request error that names the field, in the message too."""
    error = _refused(client, **options)
    assert isinstance(error, openai.BadRequestError)
    assert error.type == "invalid_request_error"
    assert (error.param or "").startswith(field)
    assert field in error.message


@pytest.mark.parametrize(
    "said",
    [
        [],
        [{"role": "king", "content": FRANCE}],
        [{"role": "user"}],
        [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}],
            }
        ],
    ],
    ids=["none", "unknown role", "no content", "an image"],
)
def test_messages_that_cannot_be_read_are_a_bad_request_error(client: OpenAI, said: Any) -> None:
    """Messages that cannot be read are a bad-request error."""
    error = _refused(client, said=said)
    assert isinstance(error, openai.BadRequestError)
    assert (error.param or "").startswith("messages")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_is_a_bad_request_error(client: OpenAI, *, stream: bool) -> None:
    """A prompt that is too long, streamed or not, is an error with the numbers of tokens."""
    error = _refused(client, said="one two three four " * 2000, stream=stream)
    assert isinstance(error, openai.BadRequestError)
    assert error.code == "context_length_exceeded"
    assert error.type == "exceed_context_size_error"
    assert isinstance(error.body, dict)
    assert error.body["n_prompt_tokens"] > error.body["n_ctx"] > 0


def test_an_error_before_a_stream_is_a_status(client: OpenAI) -> None:
    """An error before a stream begins is a status, not an event."""
    error = _refused(client, model="gpt-5", stream=True)
    assert isinstance(error, openai.NotFoundError)
    assert error.response.headers["content-type"].startswith("application/json")


def test_a_full_daemon_says_when_to_retry(start_daemon: Starter) -> None:
    """A full daemon answers with a status that clients retry, and with Retry-After."""
    own = start_daemon(server={"max_streams": 1, "max_queue": 0})
    client = connect(own)
    with client.chat.completions.create(
        model="default", messages=messages(STORY), max_tokens=900, temperature=0, stream=True
    ) as chunks:
        next(iter(chunks))
        error = _refused(client, model="default")
        assert error.status_code in {429, 503}
        assert 1 <= int(error.response.headers["retry-after"]) <= 120
        assert client.models.list().data
    own.wait_idle()


def test_an_error_in_mid_stream_is_raised(start_daemon: Starter) -> None:
    """If the worker dies during a stream, the client raises an error."""
    own = start_daemon()
    client = connect(own)
    with client.chat.completions.create(
        model="default", messages=messages(STORY), max_tokens=900, temperature=0, stream=True
    ) as chunks:
        next(chunk for chunk in chunks if chunk.choices[0].delta.content)
        os.kill(own.worker_pid(), signal.SIGKILL)
        with pytest.raises(openai.APIError) as raised:
            list(chunks)
    assert raised.value.code == "engine_died"
    own.wait_healthy()
    assert ask(client, FRANCE, model="default", max_tokens=1).usage
