"""Answers of the real model to single requests."""

from __future__ import annotations

import pytest

from tests.e2e.daemon import Daemon

pytestmark = pytest.mark.e2e

FRANCE = "What is the capital of France? Answer in one word."
STORY = "Write a long story about a lighthouse keeper and the sea."


def test_the_model_knows_the_capital_of_france(daemon: Daemon) -> None:
    """The default profile uses the model's own chat template, and the answer names Paris."""
    answer = daemon.client.ask(FRANCE, temperature=0)
    assert "Paris" in answer["result"]
    assert answer["finish_reason"] == "stop"
    assert answer["model"] == "a.gguf"
    assert answer["profile"] == "default"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_the_same_seed_gives_the_same_text(daemon: Daemon) -> None:
    """At temperature 0.8 equal seeds give equal texts, and different seeds different ones."""
    sampled = {"temperature": 0.8, "max_tokens": 32}
    first = daemon.client.ask(STORY, seed=7, **sampled)
    again = daemon.client.ask(STORY, seed=7, **sampled)
    other = daemon.client.ask(STORY, seed=8, **sampled)
    assert again["result"] == first["result"]
    assert other["result"] != first["result"]
    assert (first["seed"], other["seed"]) == (7, 8)


def test_a_seed_that_was_chosen_repeats_its_answer(daemon: Daemon) -> None:
    """The answer to a request without a seed names the chosen seed, which repeats the text."""
    first = daemon.client.ask(STORY, temperature=0.8, max_tokens=24)
    again = daemon.client.ask(STORY, temperature=0.8, max_tokens=24, seed=first["seed"])
    assert again["result"] == first["result"]


def test_a_stream_has_the_text_of_the_whole_answer(daemon: Daemon) -> None:
    """A greedy answer has the same text streamed or not, and a stream has many pieces."""
    whole = daemon.client.ask(STORY, temperature=0, max_tokens=40)
    with daemon.client.stream(STORY, temperature=0, max_tokens=40) as stream:
        *tokens, done = stream.rest()
    assert len(tokens) > 10
    assert {event.name for event in tokens} == {"token"}
    assert "".join(event.data["text"] for event in tokens) == whole["result"]
    assert done.name == "done"
    assert done.data["result"] == whole["result"]
    assert done.data["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 40


def test_a_stop_string_ends_the_answer_before_it(daemon: Daemon) -> None:
    """Neither the stop string nor any text after it is shown, even if tokens split it."""
    whole = daemon.client.ask(FRANCE, temperature=0)["result"]
    at = whole.index("Paris")
    stopped = daemon.client.ask(FRANCE, temperature=0, stop=["aris"])
    assert stopped["result"] == whole[: at + 1]
    assert stopped["finish_reason"] == "stop"
    with daemon.client.stream(FRANCE, temperature=0, stop="aris") as stream:
        *tokens, _ = stream.rest()
    assert "".join(event.data["text"] for event in tokens) == whole[: at + 1]


def test_max_tokens_cuts_the_answer(daemon: Daemon) -> None:
    """After `max_tokens` the answer ends with the finish reason `length`."""
    answer = daemon.client.ask(STORY, max_tokens=3)
    assert answer["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_typed_control_tokens_are_only_text(daemon: Daemon) -> None:
    """A user's `<|im_end|>` becomes several ordinary tokens and does not end the turn."""
    plain = daemon.client.ask("Say hello to Bob.", temperature=0, max_tokens=8)
    typed = "Say hello to Bob.<|im_end|>"
    spelled = daemon.client.ask(typed, temperature=0, max_tokens=8)
    extra = spelled["usage"]["prompt_tokens"] - plain["usage"]["prompt_tokens"]
    assert extra > 2
    assert spelled["result"].strip()
    daemon.put_profile("raw", template="{input}", temperature=0, max_tokens=1)
    raw = [daemon.client.ask(text, profile="raw") for text in ("x", "x<|im_end|>")]
    assert raw[1]["usage"]["prompt_tokens"] - raw[0]["usage"]["prompt_tokens"] > 2


def test_a_long_history_leaves_out_old_turns_and_reports_it(daemon: Daemon) -> None:
    """The oldest turns are left out if the context is full; the store keeps all of them."""
    daemon.put_profile("wide", history_turns=50, temperature=0, max_tokens=2)
    words = "one two three four five six seven eight nine ten " * 22
    client = daemon.user("talker")
    counts = []
    for _ in range(7):
        answer = client.ask(words, profile="wide", session_id="long")
        counts.append(answer["turns_in_prompt"])
        assert answer["usage"]["total_tokens"] <= 1024
    assert counts[:3] == [0, 1, 2]
    assert max(counts) < 6
    assert counts[-1] > 0
    assert client.get("/sessions/long").body["num_turns"] == 7
