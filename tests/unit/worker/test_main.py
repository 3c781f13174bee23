"""The worker's loop, with a fake model in place of llama.cpp."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest

from llmd.engine.protocol import (
    Beat,
    Cancel,
    ChatPrompt,
    Command,
    Delta,
    Done,
    Event,
    Forget,
    Loading,
    Message,
    ModelInfo,
    Part,
    Refused,
    Sampling,
    Start,
    Started,
    Submit,
    TextPrompt,
    receive_events,
    send_command,
)
from llmd.worker import loop
from llmd.worker.loop import Worker
from tests.support.fake_backend import FakeBackend, says, wait_until

INFO = ModelInfo(
    architecture="fake",
    num_parameters=1,
    num_context_tokens=64,
    max_sequences=2,
    num_threads=1,
    num_threads_batch=1,
    cpu_variant="none",
    has_chat_template=True,
)

START = Start(
    model_path="/m.gguf",
    library_dir="/lib",
    num_context_tokens=64,
    max_sequences=2,
    max_batch_tokens=16,
    num_threads=0,
    num_threads_batch=0,
    kv_type="f16",
    max_state_bytes=0,
)


class LoadedBackend(FakeBackend):
    """A backend that loads in several steps, and decodes only while `may_decode` is set."""

    info = INFO
    may_decode = threading.Event()

    def __init__(self, start: Start, on_progress: Callable[[float, str], None]) -> None:
        super().__init__(
            next_token=says("yes" * 15),
            num_context_tokens=start.num_context_tokens,
            max_sequences=start.max_sequences,
            max_batch_tokens=start.max_batch_tokens,
        )
        for done in (0.0, 0.5, 0.501, 1.0):
            on_progress(done, INFO.cpu_variant)

    def decode(self) -> float:
        assert self.may_decode.wait(20)
        return super().decode()


class Daemon:
    """The daemon's end of a worker that runs in a thread."""

    def __init__(self) -> None:
        self.sock, worker_end = socket.socketpair()
        self.sock.settimeout(20)
        self._worker_end = worker_end
        self.events: list[Event] = []
        self.worker: Worker | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        # If the daemon's end is closed during a step, `main` expects an OSError.
        with self._worker_end, contextlib.suppress(OSError):
            self.worker = Worker(self._worker_end, START)
            self.worker.run()

    def send(self, *commands: Command) -> None:
        for command in commands:
            send_command(self.sock, command)

    def send_during_a_step(self, *commands: Command) -> None:
        """Send commands that arrive during a step, and then let the step finish."""
        self.send(*commands)
        wait_until(lambda: self.worker is not None and self.worker._inbox.qsize() == len(commands))
        LoadedBackend.may_decode.set()

    def read_until(self, kind: type[Event], request_id: int | None = None) -> Event:
        """Read events up to the first of a kind, and return it."""
        while True:
            events = receive_events(self.sock)
            assert events is not None, "the worker is gone"
            self.events += events
            for event in events:
                if isinstance(event, kind) and request_id in (None, getattr(event, "id", None)):
                    return event


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """Provide a running worker, and end it by closing its socket."""
    monkeypatch.setattr(loop, "load_backend", LoadedBackend)
    LoadedBackend.may_decode.set()
    daemon = Daemon()
    yield daemon
    LoadedBackend.may_decode.set()
    daemon.sock.close()
    daemon.thread.join(20)
    assert not daemon.thread.is_alive()


def _submit(request_id: int, prompt: str, max_tokens: int = 20) -> Submit:
    return Submit(
        id=request_id,
        owner="ann",
        session="1",
        prompt=TextPrompt([Part(text=prompt)]),
        sampling=Sampling(),
        max_tokens=max_tokens,
    )


def test_worker_reports_its_progress_and_then_the_model(daemon: Daemon) -> None:
    """A worker reports each whole percent once, and then describes the model."""
    daemon.read_until(ModelInfo)
    assert daemon.events == [
        *[Loading(done, "none") for done in (0.0, 0.5, 1.0)],
        INFO,
    ]


def test_worker_answers_a_request(daemon: Daemon) -> None:
    """The events of an answer are Started, its text and Done, in this order."""
    daemon.send(_submit(1, "hi:", max_tokens=6))
    daemon.read_until(Done)
    kinds = [type(event) for event in daemon.events if not isinstance(event, Loading | Beat)]
    assert kinds == [ModelInfo, Started, *[Delta] * 6, Done]
    assert "".join(event.text for event in daemon.events if isinstance(event, Delta)) == "yesyes"


def test_worker_goes_on_after_requests_that_it_refuses(daemon: Daemon) -> None:
    """A prompt that is too long is refused with its length, any other with the reason."""
    chat = ChatPrompt([Message(role="user", content="refuse me")])
    refused_chat = msgspec.structs.replace(_submit(2, ""), prompt=chat)
    daemon.send(_submit(1, "x" * 64), refused_chat, _submit(3, "hi:"))
    daemon.read_until(Done, 3)
    refused = [event for event in daemon.events if isinstance(event, Refused)]
    assert [(e.id, e.num_prompt_tokens, e.num_context_tokens) for e in refused] == [
        (1, 64, 64),
        (2, 0, 0),
    ]
    assert "refuses" in refused[1].message


def test_worker_receives_commands_while_it_decodes(daemon: Daemon) -> None:
    """A worker obeys commands that arrive during a step as soon as the step ends."""
    LoadedBackend.may_decode.clear()
    daemon.send(_submit(1, "hi:"))
    wait_until(lambda: daemon.worker is not None and daemon.worker._dispatcher.has_work)
    daemon.send_during_a_step(_submit(2, "ho:"), Cancel(1), Forget(owner="ann", session="1"))
    done = daemon.read_until(Done, 1)
    assert isinstance(done, Done)
    assert (done.finish_reason, done.num_completion_tokens) == ("cancelled", 1)
    daemon.read_until(Done, 2)
    daemon.send(_submit(3, "ho:"))
    started = daemon.read_until(Started, 3)
    assert isinstance(started, Started)
    assert started.num_cached_tokens == 0


def test_worker_ends_when_the_daemon_closes_its_end(daemon: Daemon) -> None:
    """A worker without work returns when its socket reaches the end of file."""
    daemon.read_until(ModelInfo)
    daemon.sock.shutdown(socket.SHUT_WR)
    daemon.thread.join(20)
    assert not daemon.thread.is_alive()


def test_nothing_native_is_imported_before_the_processor_is_checked() -> None:
    """Native modules are imported after the check, since they crash on an older processor."""
    code = "import sys, llmd.worker.main; print({'numpy', 'llguidance'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
