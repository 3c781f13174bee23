"""Who asks, and may they: the middleware that stands before every route."""

from __future__ import annotations

import enum
import logging
import secrets
import time
from typing import Any, cast

import falcon

from llmd import logs
from llmd.auth.gate import Caller, Gate
from llmd.chat.outcome import Timings, Usage
from llmd.errors import Forbidden, Unauthorized


class Access(enum.Enum):
    """What a route needs. A route without an entry needs more than there is: nobody gets in."""

    OPEN = "open"
    USER = "user"
    ADMIN = "admin"


AccessTable = dict[type[object], dict[str, Access]]
"""For each resource class: HTTP method → who may use it."""


def caller_of(req: falcon.Request) -> Caller:
    """Return the key that a request came with. Raise `Unauthorized` on an open route."""
    caller = req.context.get("caller")
    if caller is None:
        raise Unauthorized
    return cast("Caller", caller)


def is_gone(req: falcon.Request) -> bool:
    """Tell whether the client has closed its connection."""
    disconnected = req.env.get("waitress.client_disconnected")
    return bool(disconnected()) if disconnected is not None else False


_PROBES = {"/health", "/livez"}
"""What monitors ask all the time: at the level info it would drown the rest of the log."""


class RequestLog:
    """What the one line of a request's log shall tell."""

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
        """Note the tokens of the answer and its times, if it came so far."""
        if usage is None:
            return
        self._timings = timings
        self._counts = {
            "num_prompt_tokens": usage.prompt_tokens,
            "num_cached_tokens": usage.prompt_tokens_details.cached_tokens,
            "num_completion_tokens": usage.completion_tokens,
        }

    def write(self, status: int) -> None:
        """Write the line."""
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
        # The thread goes on to other work, which is not this request's.
        logs.request_id.set("")


def _details(timings: Timings | None) -> dict[str, int]:
    """Return where the time of an answer went, in milliseconds, and how guesses went if any."""
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


class AccessMiddleware:
    """Give each request an id, check its host, its key and the key's role, and log its end."""

    def __init__(self, gate: Gate, table: AccessTable, allowed_hosts: tuple[str, ...]) -> None:
        self._gate = gate
        self._table = table
        self.allow_hosts(allowed_hosts)

    def allow_hosts(self, hosts: tuple[str, ...]) -> None:
        """Take other host names than before; none: any name will do."""
        self._allowed_hosts = {host.lower().strip("[]") for host in hosts}

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Begin the log, and refuse a foreign Host header: a page may point its name at us."""
        _begin_log(req, resp)
        if self._allowed_hosts and _host(req) not in self._allowed_hosts:
            raise Forbidden("this server does not go by that host name: see [server] allowed_hosts")

    def process_resource(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        resource: object,
        params: dict[str, Any],
    ) -> None:
        """Check the key: called for every route that there is, before its method."""
        req.context["is_openai"] = getattr(resource, "is_openai", False)
        if req.method == "OPTIONS":
            return
        needed = self._table.get(type(resource), {}).get(req.method, Access.USER)
        if needed is Access.OPEN:
            return
        caller = self._gate.check(_presented(req), req.remote_addr)
        log_of(req).key_id = caller.id
        req.context["caller"] = caller
        if needed is Access.ADMIN and caller.role != "admin":
            raise Forbidden("an admin key is needed for this")

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        """Log the request, unless it goes on: a stream logs its own end."""
        # Falcon refuses its own pseudo-methods before it asks any middleware.
        log = log_of(req) if "log" in req.context else _begin_log(req, resp)
        if not log.is_streaming:
            log.write(resp.status_code)


def _begin_log(req: falcon.Request, resp: falcon.Response) -> RequestLog:
    req.context["log"] = log = RequestLog(req)
    logs.request_id.set(log.request_id)
    resp.set_header("x-request-id", log.request_id)
    return log


def _presented(req: falcon.Request) -> str | None:
    """Return the key: bare as the seed's clients send it, as Bearer, or as x-api-key."""
    header = req.get_header("Authorization")
    if header is None:
        return req.get_header("x-api-key") or req.get_header("api-key")
    scheme, _, rest = header.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else header.strip()


def _host(req: falcon.Request) -> str:
    """Return the Host header without its port, in lower case."""
    header = req.get_header("Host") or ""
    name, _, port = header.rpartition(":")
    return (name if name and port.isdigit() else header).strip("[]").lower()
