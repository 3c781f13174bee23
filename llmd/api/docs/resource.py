"""``/openapi.json`` and ``/docs``: the routes, described to programs and to people."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import falcon
import msgspec

from llmd.api.access import Access
from llmd.api.docs import openapi, page
from llmd.api.route import JsonSchema, Operation, Route

# The page is text and style alone: whatever else got into it would not run.
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

OPENAPI = {
    "GET": Operation(
        summary="Describe every route for programs",
        access=Access.OPEN,
        reply=dict[str, Any],
    ),
}
DOCS = {
    "GET": Operation(
        summary="Describe every route for people",
        access=Access.OPEN,
        reply=str,
        content_type="text/html",
    ),
}


class Documentation:
    """What there is to tell of the routes. Each form is made when it is first asked for."""

    def __init__(self, routes: list[Route]) -> None:
        self._routes = routes

    @cached_property
    def document(self) -> JsonSchema:
        """The OpenAPI document."""
        return openapi.make(self._routes)

    @cached_property
    def json(self) -> bytes:
        """The document as it is sent."""
        return msgspec.json.encode(self.document)

    @cached_property
    def html(self) -> bytes:
        """The page as it is sent."""
        return page.render(self._routes, self.document).encode()


class OpenApiResource:
    """The OpenAPI document."""

    def __init__(self, documentation: Documentation) -> None:
        self._documentation = documentation

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Send it."""
        resp.content_type = falcon.MEDIA_JSON
        resp.data = self._documentation.json


class DocsResource:
    """The page for people."""

    def __init__(self, documentation: Documentation) -> None:
        self._documentation = documentation

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Send it."""
        resp.content_type = "text/html; charset=utf-8"
        resp.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        resp.data = self._documentation.html


def with_docs(routes: list[Route]) -> list[Route]:
    """Return the routes, and after them those that tell of them all."""
    described = list(routes)
    documentation = Documentation(described)
    described += [
        Route("/openapi.json", OpenApiResource(documentation), OPENAPI, tag="Documentation"),
        Route("/docs", DocsResource(documentation), DOCS, tag="Documentation"),
    ]
    return described
