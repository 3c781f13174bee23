"""The thread that tokenises long texts, so that decoding does not wait: one may take 0.2 s."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from llmd.errors import InvalidField, LlmdError
from llmd.worker.cpu.team import leave_core

LONG_CHARS = 16_384
"""A text of more characters is tokenised in the thread. This many take some 10 ms."""

Tokens = list[int] | LlmdError
"""The tokens of a text, or the error that refuses it."""


@dataclass(frozen=True)
class Tokenized:
    """A function to call in the thread that decodes. It takes over the tokens of a long text."""

    deliver: Callable[[], None]


class TextThread:
    """A thread that tokenises one long text after another, and posts the results."""

    def __init__(self, post: Callable[[Tokenized], None]) -> None:
        self._post = post
        self._queue: queue.SimpleQueue[tuple[Callable[[], list[int]], Callable[[Tokens], None]]]
        self._queue = queue.SimpleQueue()
        self._is_started = False

    def tokenize(self, read: Callable[[], list[int]], then: Callable[[Tokens], None]) -> None:
        """Call `read` in the thread, and post a call of `then` with its result or its error.

        `read` must be safe beside decoding. Only the thread that decodes may call this.
        """
        if not self._is_started:
            self._is_started = True
            threading.Thread(target=self._run, name="texts", daemon=True).start()
        self._queue.put((read, then))

    def _run(self) -> None:
        leave_core()
        while True:
            read, then = self._queue.get()
            self._post(_call_of(then, _tokens_of(read)))


def _call_of(then: Callable[[Tokens], None], tokens: Tokens) -> Tokenized:
    return Tokenized(lambda: then(tokens))


def _tokens_of(read: Callable[[], list[int]]) -> Tokens:
    try:
        return read()
    except LlmdError as error:
        return error
    except Exception as unforeseen:  # noqa: BLE001 - the thread must go on
        sys.stderr.write(f"a text could not be tokenised: {unforeseen!r}\n")
        return InvalidField("the text cannot be tokenised")
