"""OpenAI's client lists models and chats."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletion

from tests.clients.sdk import (
    FRANCE,
    MODEL,
    NUM_TOKENS,
    STORY,
    Said,
    ask,
    checked,
    content_of,
    joined,
    stream,
)
from tests.e2e.daemon import Daemon

pytestmark = pytest.mark.e2e


def test_models_are_profiles_and_files(client: OpenAI) -> None:
    """The list of models has profiles and files, and each of them can be retrieved."""
    models = {model.id: checked(model) for model in client.models.list()}
    assert {MODEL, "default", "a.gguf"} <= set(models)
    for name in (MODEL, "a.gguf"):
        assert client.models.retrieve(name) == models[name]
        assert models[name].created > 0
        assert models[name].owned_by


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    """An unknown model is a 404; no other model answers instead."""
    with pytest.raises(openai.NotFoundError) as shown:
        client.models.retrieve("gpt-5")
    with pytest.raises(openai.NotFoundError) as asked:
        ask(client, FRANCE, model="gpt-5")
    assert shown.value.code == asked.value.code == "model_not_found"


def test_an_answer_has_all_fields_that_clients_read(client: OpenAI) -> None:
    """An answer has text, finish reason, usage, id and fingerprint as clients expect them."""
    answer = ask(client, FRANCE)
    (choice,) = answer.choices
    assert choice.index == 0
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert not choice.message.tool_calls
    assert choice.finish_reason in {"stop", "length"}
    assert "cmpl" in answer.id
    assert answer.model == MODEL
    assert answer.system_fingerprint
    assert answer.system_fingerprint.startswith("b")
    usage = answer.usage
    assert usage
    assert usage.prompt_tokens > 0
    assert 0 < usage.completion_tokens <= NUM_TOKENS
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_file_answers_by_its_name(client: OpenAI) -> None:
    """The loaded model answers by its file's name as well as by a profile's."""
    answer = ask(client, FRANCE, model="a.gguf", temperature=0, max_tokens=4)
    assert answer.model == "a.gguf"
    assert content_of(answer)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_max_tokens_cut_the_answer(client: OpenAI, field: str) -> None:
    """The answer ends at the token limit with the finish reason `length`."""
    cut: dict[str, Any] = {field: 3}
    answer = ask(client, STORY, **cut)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage
    assert answer.usage.completion_tokens == 3


def _with_system(role: str, text: str) -> Said:
    if role == "system":
        return [{"role": "system", "content": text}, {"role": "user", "content": STORY}]
    return [{"role": "developer", "content": text}, {"role": "user", "content": STORY}]


def test_a_developer_is_a_system(client: OpenAI) -> None:
    """The roles `system` and `developer` make the same prompt."""
    system, developer = (
        ask(client, _with_system(role, "You are a pirate.")) for role in ("system", "developer")
    )
    other = ask(client, _with_system("system", "You are a pirate, and a very old one."))
    assert content_of(system) == content_of(developer)
    assert system.usage and developer.usage and other.usage
    assert system.usage.prompt_tokens == developer.usage.prompt_tokens < other.usage.prompt_tokens


def test_content_may_be_a_list_of_texts(client: OpenAI) -> None:
    """One text part equals a string, and several parts are joined."""
    whole = ask(client, FRANCE)
    one = ask(client, [{"role": "user", "content": [{"type": "text", "text": FRANCE}]}])
    assert content_of(one) == content_of(whole)
    first, second = FRANCE.split("? ")
    parts: Said = [
        {
            "role": "user",
            "content": [{"type": "text", "text": f"{first}? "}, {"type": "text", "text": second}],
        }
    ]
    two = ask(client, parts)
    assert one.usage and two.usage
    assert two.usage.prompt_tokens >= one.usage.prompt_tokens


def test_stop_strings_end_the_answer_before_them(client: OpenAI) -> None:
    """The answer ends before a stop string; of several, before the first that comes up."""
    whole = content_of(ask(client, STORY))
    words = whole.split()
    early, late = words[1], words[3]
    for stop in (early, [late, early]):
        answer = ask(client, STORY, stop=stop)
        assert content_of(answer) == whole[: whole.index(early)]
        assert answer.choices[0].finish_reason == "stop"


def test_a_seed_repeats_its_answer(client: OpenAI) -> None:
    """At a high temperature, the same seed gives the same text and another seed another text."""
    first, again, other = (
        content_of(ask(client, STORY, temperature=1, seed=seed)) for seed in (7, 7, 8)
    )
    assert first == again != other


def test_a_bias_forces_or_forbids_a_token(client: OpenAI, daemon: Daemon) -> None:
    """A bias of 100 forces a token and one of -100 forbids it, by the ids from `/tokenize`."""
    token = daemon.client.call("POST", "/tokenize", {"content": " sea"}).body["tokens"][0]
    text = daemon.client.call("POST", "/detokenize", {"tokens": [token]}).body["content"]
    forced = ask(client, STORY, max_tokens=4, logit_bias={str(token): 100})
    assert content_of(forced) == text * 4
    forbidden = ask(client, "Say: the sea, the sea.", logit_bias={str(token): -100})
    assert text not in content_of(forbidden)


def _check_logprobs(answer: ChatCompletion, text: str) -> None:
    found = answer.choices[0].logprobs
    assert found and found.content
    for entry in found.content:
        assert entry.logprob <= 0
        assert entry.bytes
        likely = [top.logprob for top in entry.top_logprobs]
        assert len(likely) == 3
        assert likely == sorted(likely, reverse=True)
        # At temperature 0 the most likely token is chosen.
        assert entry.top_logprobs[0].token == entry.token
        assert entry.top_logprobs[0].logprob == entry.logprob
    spelled = b"".join(bytes(entry.bytes or []) for entry in found.content)
    assert spelled.decode() == text


def test_log_probabilities_come_for_each_token(client: OpenAI) -> None:
    """On request each token has its log probability and the most likely tokens at its position."""
    answer = ask(client, STORY, max_tokens=5, logprobs=True, top_logprobs=3)
    _check_logprobs(answer, content_of(answer))
    assert ask(client, STORY, max_tokens=5).choices[0].logprobs is None


def test_a_stream_has_log_probabilities_too(client: OpenAI) -> None:
    """A stream has the same log probabilities as a whole answer."""
    whole = ask(client, STORY, max_tokens=5, logprobs=True, top_logprobs=3)
    chunks = stream(client, STORY, max_tokens=5, logprobs=True, top_logprobs=3)
    logprobs = [choice.logprobs for chunk in chunks for choice in chunk.choices]
    tokens = [entry.token for found in logprobs if found for entry in found.content or []]
    expected = whole.choices[0].logprobs
    assert expected
    assert tokens == [entry.token for entry in expected.content or []]


def test_a_stream_is_the_whole_answer_in_pieces(client: OpenAI) -> None:
    """A stream has the role, then the text, then the finish reason; its head never changes."""
    whole = ask(client, STORY)
    chunks = stream(client, STORY)
    assert joined(chunks) == content_of(whole)
    assert len({(c.id, c.created, c.model, c.system_fingerprint) for c in chunks}) == 1
    first, *middle, last = (choice for chunk in chunks for choice in chunk.choices)
    assert first.delta.role == "assistant"
    assert first.delta.content is None
    assert all(choice.delta.role is None for choice in middle)
    assert all(choice.finish_reason is None for choice in (first, *middle))
    assert last.finish_reason == whole.choices[0].finish_reason
    assert last.delta.content is None
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_last_and_only_on_request(client: OpenAI) -> None:
    """On request the usage of the whole answer comes in a last chunk without choices."""
    whole = ask(client, STORY)
    *chunks, last = stream(client, STORY, stream_options={"include_usage": True})
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)
    assert last.choices == []
    assert last.usage and whole.usage
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.total_tokens == whole.usage.total_tokens


def test_the_clients_own_reader_of_streams_agrees(client: OpenAI) -> None:
    """The client's own reader of streams builds the same text as a whole answer has."""
    with client.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": FRANCE}], max_tokens=64
    ) as events:
        events.until_done()
        final = events.get_final_completion()
    assert final.choices[0].message.content == content_of(ask(client, FRANCE, max_tokens=64))


def test_several_answers_at_once_are_refused(client: OpenAI) -> None:
    """More than one choice is refused."""
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, FRANCE, n=2)
    assert refused.value.param == "n"
    assert content_of(ask(client, FRANCE, n=1))


def test_fields_without_effect_are_accepted(client: OpenAI) -> None:
    """Fields that known clients send and that have no effect are accepted."""
    plain = ask(client, FRANCE)
    adorned = ask(
        client,
        FRANCE,
        user="u-1",
        store=False,
        metadata={"a": "b"},
        service_tier="auto",
        parallel_tool_calls=True,
        presence_penalty=0,
        frequency_penalty=0,
        top_p=1,
        prediction={"type": "content", "content": "Paris"},
    )
    assert content_of(adorned) == content_of(plain)


def test_a_text_is_continued(client: OpenAI) -> None:
    """The older completions API continues a text, whole and as a stream."""
    options = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 6}
    whole = client.completions.create(**options)  # type: ignore[call-overload]
    assert isinstance(whole, Completion)
    whole = checked(whole)
    assert whole.choices[0].text
    assert whole.choices[0].finish_reason == "length"
    assert "cmpl" in whole.id
    assert whole.usage
    assert whole.usage.completion_tokens == 6
    chunks = list(client.completions.create(**options, stream=True))  # type: ignore[call-overload]
    texts = [choice.text for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == whole.choices[0].text
