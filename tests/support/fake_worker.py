"""A worker without a model. The model file says how it loads, and prompts say what it does.

It is run as a script: ``python fake_worker.py DESCRIPTOR``.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from llmd.engine.protocol import (
    Beat,
    Cancel,
    Delta,
    Done,
    Event,
    FinishReason,
    Forget,
    LoadFailed,
    Loading,
    ModelInfo,
    Part,
    Refused,
    Start,
    Started,
    Submit,
    TextPrompt,
    TokenPrompt,
    receive_command,
    send_events,
)

BEAT = Beat(
    num_running=1,
    num_waiting=0,
    num_prompt_tokens=10,
    num_cached_tokens=5,
    num_completion_tokens=20,
    step_s=0.001,
)


class FakeWorker:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._waiting: set[int] = set()

    def run(self) -> None:
        start = receive_command(self._sock)
        assert isinstance(start, Start), "the first command is Start"
        variants = [
            name
            for name in ("best", "better", "good", "fair", "plain")
            if name not in start.avoid_variants
        ]
        self._variant = variants[0]
        send_events(self._sock, [Loading(0.4, self._variant)])
        self._load(Path(start.model_path).read_text())
        while (command := receive_command(self._sock)) is not None:
            if isinstance(command, Submit):
                if isinstance(command.prompt, TokenPrompt):
                    self._generate(command, start)
                else:
                    assert isinstance(command.prompt, TextPrompt)
                    self._answer(command.id, command.prompt.parts)
            elif isinstance(command, Forget):
                said = f"forgot {command.owner} {command.session}"
                send_events(self._sock, [Delta(number, said) for number in self._waiting])
            elif isinstance(command, Cancel):
                self._waiting.discard(command.id)
                send_events(self._sock, [_done(command.id, "cancelled")])

    def _load(self, how: str) -> None:
        if how == "refuse":
            send_events(self._sock, [LoadFailed("not a model that runs here")])
            sys.exit(1)
        if how == "lack memory":
            send_events(self._sock, [LoadFailed("no memory for that", is_models_fault=False)])
            sys.exit(1)
        if how == "die":
            sys.exit("first words\nlast words")
        if how == "hang":
            _hang()
        if how.startswith("only ") and how != f"only {self._variant}":
            os.kill(os.getpid(), signal.SIGILL)
        send_events(
            self._sock,
            [
                ModelInfo(
                    architecture="fake",
                    num_parameters=1_000_000,
                    num_context_tokens=512,
                    max_sequences=4,
                    num_threads=1,
                    num_threads_batch=1,
                    cpu_variant=self._variant,
                    has_chat_template=False,
                )
            ],
        )
        if how == "die when ready":
            sys.exit(3)

    def _generate(self, command: Submit, start: Start) -> None:
        """Report times of a machine whose generation gets no faster with more than two threads."""
        assert isinstance(command.prompt, TokenPrompt)
        assert command.ignores_end
        num_prompt = len(command.prompt.tokens)
        done = Done(
            id=command.id,
            finish_reason="length",
            num_completion_tokens=command.max_tokens,
            queue_ms=0.0,
            prefill_ms=10.0 * num_prompt / start.num_threads_batch,
            decode_ms=10.0 * command.max_tokens / min(start.num_threads, 2),
        )
        started = Started(
            id=command.id, num_prompt_tokens=num_prompt, num_cached_tokens=0, num_turns=0
        )
        send_events(self._sock, [started, done])

    def _answer(self, request_id: int, parts: list[Part]) -> None:
        verb, _, rest = parts[0].text.partition(" ")
        if verb == "refuse":
            send_events(self._sock, [Refused(id=request_id, message=rest)])
            return
        started = Started(id=request_id, num_prompt_tokens=3, num_cached_tokens=1, num_turns=0)
        said = str(os.getpid()) if rest == "pid" else rest
        events: list[Event] = [started, Delta(request_id, said), BEAT]
        if verb == "say":
            events.append(_done(request_id, "stop"))
        send_events(self._sock, events)
        if verb == "wait":
            self._waiting.add(request_id)
        if verb == "die":
            os.kill(os.getpid(), getattr(signal, rest))
        if verb == "hang":
            _hang()
        if verb == "rave":
            self._sock.sendall(b"\0\0\0\4oops")
        if verb == "until":
            while not Path(rest).exists():
                time.sleep(0.005)
            send_events(self._sock, [_done(request_id, "stop")])


def _done(request_id: int, reason: FinishReason) -> Done:
    return Done(
        id=request_id,
        finish_reason=reason,
        num_completion_tokens=1,
        queue_ms=0.0,
        prefill_ms=0.0,
        decode_ms=0.0,
    )


def _hang() -> NoReturn:
    """Hang without reading the socket, as native code may."""
    while True:
        signal.pause()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    FakeWorker(socket.socket(fileno=int(sys.argv[1]))).run()
