"""A harness for requests that may be retries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from llmd.chat.completions import Options
from llmd.chat.joined_run import JoinedRun
from llmd.chat.retries import Attempt, Retries
from llmd.chat.run import Run
from tests.support.answers import never
from tests.support.service import Service


def attempt(*, key: str = "k", body: str = "hi", owner: str = "ann", again: bool = True) -> Attempt:
    """Return an attempt, which is a retry unless `again` is False."""
    digest = hashlib.sha256(body.encode()).digest()
    return Attempt(owner=owner, key=key, digest=digest, is_retry=again)


class RetriesHarness:
    """Retries over a whole service, with the number of runs that were started."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.retries = Retries()

    def run(self, attempt: Attempt, is_gone: Callable[[], bool] = never) -> JoinedRun:
        """Start a run for a client, or join one."""

        def start(is_left: Callable[[], bool]) -> Run:
            options = Options(model="default")
            return self.service.completions.start("ann", "hi", options, is_left)

        return self.retries.run(attempt, is_gone, start)

    @property
    def num_runs(self) -> int:
        """The number of requests that the engine got."""
        return len(self.service.engine.requests)
