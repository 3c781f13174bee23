"""OpenAI's routes with clients that leave, retry, or send requests all day."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import HOST
from tests.e2e.daemon import Daemon, Starter
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e

NUM_STREAMED = 1000
CHAT: dict[str, Any] = {
    "model": "default",
    "messages": [{"role": "user", "content": "Name a fruit."}],
    "temperature": 0,
    "max_tokens": 8,
}


class Caller:
    """Post to one route, with one connection for all requests."""

    def __init__(self, daemon: Daemon, path: str = "/v1/chat/completions") -> None:
        self._path = path
        self._key = daemon.key
        self.connection = http.client.HTTPConnection(HOST, daemon.port, timeout=90)

    def begin(self, body: object, **headers: str) -> http.client.HTTPResponse:
        """Send a request and return the response, unread."""
        sent = {"Authorization": f"Bearer {self._key}"} | headers
        self.connection.request("POST", self._path, json.dumps(body), sent)
        return self.connection.getresponse()

    def post(self, body: object, **headers: str) -> Any:
        """Send a request and return the body of the answer."""
        with self.begin(body, **headers) as response:
            content = response.read()
        assert response.status == 200, content
        return json.loads(content)


def _num_threads_and_files(pid: int) -> tuple[int, int]:
    """Return the numbers of threads and open files of a process."""
    process = Path(f"/proc/{pid}")
    return len(list((process / "task").iterdir())), len(list((process / "fd").iterdir()))


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_a_thousand_streams_leave_nothing_behind(start_daemon: Starter) -> None:
    """After 1000 streams there are no more threads or open files, and memory has not grown."""
    daemon = start_daemon()
    caller = Caller(daemon)

    def stream(number: int) -> None:
        body = CHAT | {"stream": True, "max_tokens": 2}
        body["messages"] = [{"role": "user", "content": f"{number}"}]
        # Every other one with the header of OpenAI's client, whose retry may join the request.
        headers = {"X-Stainless-Retry-Count": "0"} if number % 2 else {}
        with caller.begin(body, **headers) as response:
            assert response.read().endswith(b"data: [DONE]\n\n")

    pids = daemon.pid, daemon.worker_pid()
    for number in range(NUM_STREAMED // 4):
        stream(number)
    daemon.wait_idle()
    num_before = [_num_threads_and_files(pid) for pid in pids]
    resident = [_resident_bytes(pid) for pid in pids]
    for number in range(NUM_STREAMED // 4, NUM_STREAMED):
        stream(number)
    daemon.wait_idle()
    until(
        lambda: [_num_threads_and_files(pid) for pid in pids] <= num_before,
        "as many threads and files as before",
    )
    for pid, before in zip(pids, resident, strict=True):
        assert _resident_bytes(pid) < before + 32 * 1024 * 1024


@pytest.mark.parametrize("headers", [{}, {"X-Stainless-Retry-Count": "0"}])
@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_client_that_leaves_frees_its_sequence(
    daemon: Daemon, headers: dict[str, str], is_streamed: bool
) -> None:
    """Generation stops when the client leaves, streamed or not, with or without its headers."""
    caller = Caller(daemon)
    body = CHAT | {"stream": is_streamed, "max_tokens": 1000, "logit_bias": {"2": -100}}
    response: http.client.HTTPResponse | None = None
    if is_streamed:
        response = caller.begin(body, **headers)
        response.readline()
    else:
        sent = {"Authorization": f"Bearer {daemon.key}"} | headers
        caller.connection.request("POST", "/v1/chat/completions", json.dumps(body), sent)
    daemon.wait_streams(active=1, queued=0)
    if response is not None:
        response.close()
    caller.connection.close()
    daemon.wait_idle()


def test_a_retry_gets_the_first_answer(daemon: Daemon) -> None:
    """A retry, by OpenAI's header or an idempotency key, gets the same id and sampled text."""
    body = CHAT | {"temperature": 2, "max_tokens": 30}
    first = Caller(daemon).post(body, **{"X-Stainless-Retry-Count": "0"})
    assert Caller(daemon).post(body, **{"X-Stainless-Retry-Count": "1"}) == first
    keyed = Caller(daemon).post(body, **{"Idempotency-Key": "a"})
    assert keyed["id"] != first["id"]
    with ThreadPoolExecutor(4) as pool:
        again = pool.map(lambda _: Caller(daemon).post(body, **{"Idempotency-Key": "a"}), range(4))
        assert all(answer == keyed for answer in again)
    other = Caller(daemon).begin(body | {"seed": 1}, **{"Idempotency-Key": "a"})
    assert other.status == 400


def test_a_response_is_a_turn_of_a_session(start_daemon: Starter) -> None:
    """A response can be continued by either route, and is stored with the session's turns."""
    daemon = start_daemon()
    told = {"model": "default", "input": "My name is Ann.", "conversation": "talk"}
    response = Caller(daemon, "/v1/responses").post(told | {"max_output_tokens": 8})
    daemon.client.ask("What is my name?", session_id="talk", max_tokens=8)
    daemon.kill()
    daemon.start()
    turns = daemon.client.get("/sessions/talk").body["turns"]
    assert [turn["user"] for turn in turns] == ["My name is Ann.", "What is my name?"]
    assert turns[0]["assistant"] == response["output"][0]["content"][0]["text"]
    kept = daemon.client.get(f"/v1/responses/{response['id']}").body
    assert kept == response
    more = {"model": "default", "input": "And?", "conversation": "talk", "max_output_tokens": 4}
    third = Caller(daemon, "/v1/responses").post(more)
    assert third["usage"]["input_tokens"] > response["usage"]["input_tokens"]


def test_conversations_of_one_key_stay_warm_by_their_names(start_daemon: Starter) -> None:
    """Each of three conversations finds its state, though they begin alike and share two slots."""
    daemon = start_daemon(engine={"context": 4096, "parallel": 2})
    caller = Caller(daemon)
    begin = "This is a long beginning that all of them share. " * 12

    def turn(name: str, *texts: str) -> Any:
        roles = ("user", "assistant")
        messages = [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]
        return caller.post(CHAT | {"messages": messages, "user": name, "max_tokens": 4})

    names = ("kitchen", "garage", "garden")
    told = {name: begin + f"You are in the {name}. " * 12 for name in names}
    said = {
        name: turn(name, told[name])["choices"][0]["message"]["content"] or "-" for name in names
    }
    for name in names:
        usage = turn(name, told[name], said[name], "Where?")["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] * 0.8


def test_an_answer_that_is_continued_holds_only_what_is_new(daemon: Daemon) -> None:
    """An answer that was cut off, sent back as the last message, goes on where it ended."""
    caller = Caller(daemon)
    whole = caller.post(CHAT | {"max_tokens": 24})["choices"][0]["message"]["content"]
    begun = caller.post(CHAT | {"max_tokens": 8})["choices"][0]["message"]["content"]
    assert whole.startswith(begun)
    messages = [*CHAT["messages"], {"role": "assistant", "content": begun}]
    reply = caller.post(CHAT | {"messages": messages, "max_tokens": 16})
    assert begun + reply["choices"][0]["message"]["content"] == whole
    # Only the last token may have to be computed again.
    cached = reply["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached >= reply["usage"]["prompt_tokens"] - 2
    caller.connection.close()
