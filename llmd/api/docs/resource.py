"""``/openapi.json`` and ``/docs``: the description of all routes, for programs and for people."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import falcon
import msgspec

from llmd.api.access import Access
from llmd.api.docs import openapi, page
from llmd.api.route import JsonSchema, Operation, Route

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page consists of text and style only. The browser blocks everything else."""

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
    """The description of the routes. Each form of it is made at the first request for it."""

    def __init__(self, routes: list[Route]) -> None:
        self._routes = routes

    @cached_property
    def document(self) -> JsonSchema:
        """The OpenAPI document."""
        return openapi.make(self._routes)

    @cached_property
    def json(self) -> bytes:
        """The bytes of the OpenAPI document."""
        return msgspec.json.encode(self.document)

    @cached_property
    def html(self) -> bytes:
        """The bytes of the page."""
        return page.render(self._routes, self.document).encode()


class OpenApiResource:
    """The OpenAPI document."""

    def __init__(self, documentation: Documentation) -> None:
        self._documentation = documentation

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Send the document."""
        resp.content_type = falcon.MEDIA_JSON
        resp.data = self._documentation.json


class DocsResource:
    """The page for people."""

    def __init__(self, documentation: Documentation) -> None:
        self._documentation = documentation

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Send the page."""
        resp.content_type = "text/html; charset=utf-8"
        resp.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        resp.data = self._documentation.html


def with_docs(routes: list[Route]) -> list[Route]:
    """Return the routes, followed by the two that describe them all."""
    table = list(routes)
    documentation = Documentation(table)
    # These two are described too: `documentation` reads the table at the first request.
    table += [
        Route("/openapi.json", OpenApiResource(documentation), OPENAPI, tag="Documentation"),
        Route("/docs", DocsResource(documentation), DOCS, tag="Documentation"),
    ]
    return table
