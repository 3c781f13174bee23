"""A session remembers exactly what was said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Client
from tests.e2e.daemon import Daemon, Starter

pytestmark = pytest.mark.e2e

TOLD = "My name is Zoltan and I live in Lisbon."
ASKED = "What is my name?"
LABELS = {"stop": ["Human:"], "temperature": 0, "max_tokens": 16}
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def _user(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def _check_same_as_spelled_out(remembered: Any, spelled: Any, forgetful: Any) -> None:
    """Check that a second turn has the same prompt and answer as the spelled-out prompt."""
    assert remembered["turns_in_prompt"] == 1
    assert spelled["turns_in_prompt"] == forgetful["turns_in_prompt"] == 0
    assert remembered["usage"]["prompt_tokens"] == spelled["usage"]["prompt_tokens"]
    assert remembered["usage"]["prompt_tokens"] > forgetful["usage"]["prompt_tokens"]
    assert remembered["result"] == spelled["result"]
    assert remembered["result"] != forgetful["result"]


def _check_lines(daemon: Daemon, client: Client, first: Any) -> None:
    """Check the second turn with a profile's own template."""
    remembered = client.ask(ASKED, profile="lines", session_id=1)
    prompt = f"Human: {TOLD}\nAI: {first['result']}\nHuman: {ASKED}\nAI:"
    spelled = client.ask(prompt, profile="bare")
    _check_same_as_spelled_out(remembered, spelled, client.ask(ASKED, profile="lines"))


def _check_chat(daemon: Daemon, client: Client, first: Any) -> None:
    """Check the second turn with the model's own chat template."""
    remembered = client.ask(ASKED, profile="chat", session_id="c")
    history = (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n" + _user(TOLD) + first["result"] + "<|im_end|>\n"
    )
    daemon.put_profile("spelled", template=history + _user("{input}"), **(LABELS | {"stop": ["~"]}))
    spelled = client.ask(ASKED, profile="spelled")
    _check_same_as_spelled_out(remembered, spelled, client.ask(ASKED, profile="chat"))
    assert "Zoltan" in remembered["result"]
    assert "Zoltan" not in client.ask(ASKED, profile="chat")["result"]


def _put_profiles(daemon: Daemon) -> None:
    daemon.put_profile("lines", template="{chat_history}\nHuman: {input}\nAI:", **LABELS)
    daemon.put_profile("bare", template="{input}", **LABELS)
    daemon.put_profile("chat", system=SYSTEM, temperature=0, max_tokens=16)


def test_the_second_turn_is_as_if_both_were_spelled_out(daemon: Daemon) -> None:
    """A second turn gets the answer of a single prompt with both turns, with either template."""
    _put_profiles(daemon)
    client = daemon.user()
    _check_lines(daemon, client, client.ask(TOLD, profile="lines", session_id=1))
    _check_chat(daemon, client, client.ask(TOLD, profile="chat", session_id="c"))


def test_a_session_remembers_across_a_crash(start_daemon: Starter, model_file: Path) -> None:
    """After kill -9 between two turns, the second has the first in its prompt."""
    daemon = start_daemon(model_file)
    _put_profiles(daemon)
    client = daemon.user()
    lines = client.ask(TOLD, profile="lines", session_id=1)
    chat = client.ask(TOLD, profile="chat", session_id="c")
    daemon.kill()
    daemon.start()
    _check_lines(daemon, client, lines)
    _check_chat(daemon, client, chat)


def test_a_session_is_named_by_its_first_prompt(daemon: Daemon) -> None:
    """`GET /answer` lists the caller's sessions with the beginning of their first prompts."""
    client = daemon.user()
    client.ask("Tell me about the lighthouse of Alexandria.", session_id=1, max_tokens=1)
    client.ask("And more.", session_id="1", max_tokens=1)
    assert client.get("/answer").body == {"1": "Tell me about the lighthouse o"}
    assert client.get("/sessions/1").body["num_turns"] == 2
