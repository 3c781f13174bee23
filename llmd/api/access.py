"""The middleware that runs before every route: host name, key, role and request log."""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import falcon

from llmd import logs
from llmd.api.request_log import RequestLog, log_of
from llmd.auth.gate import Caller, Gate
from llmd.errors import Forbidden, Unauthorized


class Access(enum.Enum):
    """The access that a method of a route requires. One without an entry requires a user's key."""

    OPEN = "open"
    USER = "user"
    ADMIN = "admin"


AccessTable = dict[type[object], dict[str, Access]]
"""The access that each HTTP method requires, for each resource class."""


def caller_of(req: falcon.Request) -> Caller:
    """Return the caller, known by the key of the request. Raise `Unauthorized` on an open route."""
    caller = req.context.get("caller")
    if caller is None:
        raise Unauthorized
    return cast("Caller", caller)


def key_check_of(req: falcon.Request) -> Callable[[], None]:
    """Return a function that raises `KeyEnded` once the key of the request is not valid any more.

    The function does not keep the request, and may be called after its end. On an open route it
    does nothing.
    """
    check = req.context.get("key_check", _check_nothing)
    return cast("Callable[[], None]", check)


def is_gone(req: falcon.Request) -> bool:
    """Return whether the client has closed its connection.

    All that waits for something calls this every 0.1 s, in the queue as well as in a stream.
    Therefore it also raises `KeyEnded` once the key of the request is not valid any more.
    """
    key_check_of(req)()
    disconnected = req.env.get("waitress.client_disconnected")
    return bool(disconnected()) if disconnected is not None else False


class AccessMiddleware:
    """Give each request an id, check its host, its key and the key's role, and log its end."""

    def __init__(self, gate: Gate, table: AccessTable, allowed_hosts: tuple[str, ...]) -> None:
        self._gate = gate
        self._table = table
        self.allow_hosts(allowed_hosts)

    def allow_hosts(self, hosts: tuple[str, ...]) -> None:
        """Replace the allowed host names. An empty tuple allows any name."""
        self._allowed_hosts = {host.lower().strip("[]") for host in hosts}

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Begin the request's log, and raise `Forbidden` for a Host header that is not allowed.

        This stops DNS rebinding, where a web page points its own host name at this server.
        """
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
        """Check the key and its role. Falcon calls this once it has found the route."""
        req.context["is_openai"] = getattr(resource, "is_openai", False)
        if req.method == "OPTIONS":
            return
        needed = self._table.get(type(resource), {}).get(req.method, Access.USER)
        if needed is Access.OPEN:
            return
        caller = self._gate.check(_presented_key(req), req.remote_addr)
        log_of(req).key_id = caller.id
        req.context["caller"] = caller
        req.context["key_check"] = partial(self._gate.recheck, caller.id)
        if needed is Access.ADMIN and caller.role != "admin":
            raise Forbidden("this operation requires an admin key")

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        """Log the request, unless it is a stream, which logs its own end."""
        # Falcon refuses its own pseudo-methods before it calls `process_request`.
        log = log_of(req) if "log" in req.context else _begin_log(req, resp)
        if not log.is_streaming:
            log.write(resp.status_code)


def _check_nothing() -> None:
    """Do nothing: the request came without a key."""


def _begin_log(req: falcon.Request, resp: falcon.Response) -> RequestLog:
    req.context["log"] = log = RequestLog(req)
    logs.request_id.set(log.request_id)
    resp.set_header("x-request-id", log.request_id)
    return log


def _presented_key(req: falcon.Request) -> str | None:
    """Return the key that was sent: bare, as Bearer, as x-api-key or as api-key."""
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
