"""The line that the daemon logs for each request."""

from __future__ import annotations

import logging
import secrets
import time
from typing import cast

import falcon

from llmd import logs
from llmd.chat.outcome import Timings, Usage

_PROBES = {"/health", "/livez"}
"""Paths that monitors poll: logged at debug level, or they would drown the rest of the log."""


class RequestLog:
    """The values of a request's log line, collected while the request is answered."""

    def __init__(self, req: falcon.Request) -> None:
        self._method = req.method
        self._path = req.path
        self._began = time.monotonic()
        self._counts: dict[str, int] = {}
        self._timings: Timings | None = None
        self.request_id = secrets.token_hex(8)
        self.key_id: str | None = None
        self.is_streaming = False

    def add_usage(self, usage: Usage | None, timings: Timings | None) -> None:
        """Add the token counts and times of an answer, if there are any yet."""
        if usage is None:
            return
        self._timings = timings
        self._counts = {
            "num_prompt_tokens": usage.prompt_tokens,
            "num_cached_tokens": usage.prompt_tokens_details.cached_tokens,
            "num_completion_tokens": usage.completion_tokens,
        }

    def write(self, status: int) -> None:
        """Write the line. The level is debug for `_PROBES`, else info."""
        logs.request_id.set(self.request_id)
        logs.log_request(
            self._method,
            self._path,
            status,
            time.monotonic() - self._began,
            key_id=self.key_id,
            level=logging.DEBUG if self._path in _PROBES else logging.INFO,
            details=_details(self._timings),
            **self._counts,
        )
        # The thread's next log lines do not belong to this request.
        logs.request_id.set("")


def _details(timings: Timings | None) -> dict[str, int]:
    """Return the times of an answer in milliseconds, and the counts of drafted tokens, if any."""
    if timings is None:
        return {}
    details = {
        "queue": round(timings.queue_ms),
        "prefill": round(timings.prefill_ms),
        "decode": round(timings.decode_ms),
    }
    if timings.drafted_tokens:
        details |= {"drafted": timings.drafted_tokens, "accepted": timings.accepted_tokens}
    return details


def log_of(req: falcon.Request) -> RequestLog:
    """Return the log of a request."""
    return cast("RequestLog", req.context["log"])
