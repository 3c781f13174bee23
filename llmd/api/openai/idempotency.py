"""Recognise requests that a client sends again, and join them to the run that they started."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import falcon

from llmd.api.access import caller_of, is_gone, key_check_of
from llmd.api.route import Parameter
from llmd.chat.joined_run import JoinedRun
from llmd.chat.retries import Attempt, Retries
from llmd.chat.run import Run
from llmd.errors import InvalidField

MAX_KEY_CHARS = 256
"""The longest Idempotency-Key that is accepted."""

IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "For some minutes, a request with the same key and the same body gets the same answer.",
    {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARS},
)

AnyRun = Run | JoinedRun
"""A run that one request reads, or one that several requests may read."""


class IdempotentRuns:
    """Starts runs for HTTP requests. A repeated request joins the run of the first one."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries

    def start_or_join(
        self,
        req: falcon.Request,
        raw: bytes,
        start: Callable[[str, Callable[[], bool]], Run],
        *,
        part: int = 0,
    ) -> AnyRun:
        """Return the run of a request: a new one, or the one that the same request started before.

        `start` starts a new run. It gets the run's owner, and a function that returns whether all
        clients that waited for the answer have gone. A request with several runs numbers them by
        `part`.
        """
        owner = caller_of(req).id
        attempt = _attempt(req, owner, raw, part)
        if attempt is None:
            return start(owner, lambda: is_gone(req))
        check_key = key_check_of(req)

        def start_shared(is_left: Callable[[], bool]) -> Run:
            def is_over() -> bool:
                # The run may outlive this request, but not its key.
                check_key()
                return is_left()

            return start(owner, is_over)

        return self._retries.run(attempt, lambda: is_gone(req), start_shared)


def _attempt(req: falcon.Request, owner: str, raw: bytes, part: int) -> Attempt | None:
    """Return the identity of a request; None if its client does not mark repeated requests."""
    name = req.get_header("Idempotency-Key")
    count = req.get_header("X-Stainless-Retry-Count")
    if name is None and count is None:
        return None
    digest = hashlib.sha256(req.path.encode() + b"\0" + raw).digest()
    if name is not None:
        if not 1 <= len(name) <= MAX_KEY_CHARS:
            raise InvalidField(
                f"Idempotency-Key must have 1 to {MAX_KEY_CHARS} characters",
                param="Idempotency-Key",
            )
        return Attempt(
            owner=owner, key=f"key:{part}:{name}", digest=digest, is_retry=True, comes_again=True
        )
    limit = req.get_header("X-Stainless-Read-Timeout") or ""
    is_number = re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", limit) is not None
    return Attempt(
        owner=owner,
        key=f"body:{part}:{digest.hex()}",
        digest=digest,
        is_retry=count not in (None, "", "0"),
        gives_up_after_s=float(limit) if is_number else None,
    )
