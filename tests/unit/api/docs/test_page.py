"""The page for people: complete and safe, with commands that work."""

from __future__ import annotations

import re
import shlex
from html.parser import HTMLParser
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct

from llmd.api.access import Access
from llmd.api.app import routes
from llmd.api.docs import openapi, page
from llmd.api.docs.error_responses import error_causes
from llmd.api.docs.schema_words import describe_type, example
from llmd.api.errors import KINDS
from llmd.api.route import Operation, Parameter, Route, plain_path
from llmd.errors import Conflict, StoreFull
from tests.support.service import Service

_VOID = {"meta", "link", "br", "hr", "img"}


class Page(HTMLParser):
    """A page as a browser parses it. Every element must be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.commands: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.texts.append(data)
        if "pre" in self._open and data.startswith("curl "):
            self.commands.append(data)

    @property
    def text(self) -> str:
        """All readable text, with single spaces."""
        return " ".join(" ".join(self.texts).split())

    def values(self, attribute: str) -> list[str]:
        """Return all values of an attribute."""
        return [str(attrs[attribute]) for _, attrs in self.elements if attribute in attrs]


@pytest.fixture
def html(service: Service) -> str:
    """Return the page as it is sent, without a key."""
    result = service.ask("GET", "/docs", key="")
    assert result.status_code == 200
    return str(result.text)


def rendered(*given: Route) -> str:
    """Return the page of some routes."""
    table = list(given)
    return page.render(table, openapi.make(table))


def test_the_page_lets_nothing_in_but_its_own_style(service: Service) -> None:
    """The Content-Security-Policy of the page allows only its own style."""
    headers = service.ask("GET", "/docs", key="").headers
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_the_page_needs_nothing_from_elsewhere(html: str) -> None:
    """The page has no script, font, picture or link to another host."""
    found = Page(html)
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "form", "base"}
    assert not found.values("src")
    assert {link for link in found.values("href") if not link.startswith("#")} == {"openapi.json"}
    assert not re.search(r"url\(|@import|javascript:|\bon\w+=", html)


def test_every_link_of_the_page_leads_to_an_element(html: str) -> None:
    """Every link leads to an element of the page, and no two elements share an id."""
    found = Page(html)
    ids = found.values("id")
    assert len(set(ids)) == len(ids)
    linked = {link[1:] for link in found.values("href") if link.startswith("#")}
    assert linked <= set(ids)


def test_the_page_can_be_read_on_a_phone_in_the_dark(html: str) -> None:
    """The page fits the width of the screen and follows the dark colour scheme."""
    [viewport] = [attrs for _, attrs in Page(html).elements if attrs.get("name") == "viewport"]
    assert viewport["content"] == "width=device-width, initial-scale=1"
    assert "prefers-color-scheme: dark" in html


def test_every_route_is_on_the_page(service: Service, html: str) -> None:
    """Every method is on the page with path, access, summary and aliases."""
    text = Page(html).text
    who = {Access.OPEN: "no key", Access.USER: "any key", Access.ADMIN: "admin key"}
    for route in routes(service.services):
        for method, operation in route.operations.items():
            line = f"{method} {plain_path(route.path)} {who[operation.access]} {operation.summary}."
            assert line in text
        for path in route.aliases:
            assert plain_path(path) in text


def test_every_error_is_in_the_table(service: Service, html: str) -> None:
    """Every error is in the table, with status and code."""
    text = Page(html).text
    for route in routes(service.services):
        for operation in route.operations.values():
            for cause in error_causes(route, operation):
                assert f"{cause.status} {cause.code}" in text
    for kind in (Conflict, StoreFull):
        assert f"{KINDS[kind].status} {KINDS[kind].code} {kind.__doc__}" in text


def test_fields_have_type_default_and_meaning(html: str) -> None:
    """Fields of bodies, queries and answers have type, default and meaning."""
    text = Page(html).text
    for words in (
        "prompt text, not empty; required What to answer.",
        "stream true or false; default false Answer with server-sent events.",
        "limit whole number, 1 to 1000; default 100 In the query. How many",
        "session_id text; required In the path.",
        "cached_tokens whole number",
        'role "admin" or "user"; default "user"',
        'With "stream": true Events token with',
        "Body, which may be left out",
        "Answer: 204, without a body",
    ):
        assert words in text, words


class Sent(Struct, forbid_unknown_fields=True):
    """A body & <b>more</b>."""

    text: Annotated[str, Meta(description="<i>what</i>", examples=["it's $HOME <b>`x`</b>"])]


def test_descriptions_are_escaped() -> None:
    """Summaries, descriptions, parameters, examples and events are escaped."""
    nasty = "<script>alert(1)</script> `<b>` & \"'"
    operation = Operation(
        summary=nasty,
        description=nasty,
        access=Access.USER,
        body=Sent,
        reply=Sent,
        stream=nasty,
        query=(Parameter("<u>", nasty, {"type": "string", "default": nasty}),),
    )
    html = rendered(Route("/x<s>", None, {"POST": operation}, tag=nasty, aliases=("/<q>",)))
    found = Page(html)
    assert not {tag for tag, _ in found.elements} & {"script", "b", "i", "u", "s", "q"}
    assert "<script>alert(1)</script>" in found.text
    assert "<i>what</i>" in found.text


def test_a_command_is_safe_in_a_shell() -> None:
    """A quote in an example neither ends the shell's string nor runs a command."""
    operation = Operation(summary="Do", access=Access.USER, body=Sent)
    [command] = Page(rendered(Route("/x", None, {"PUT": operation}))).commands
    words = shlex.split(command.replace("\\\n", ""))
    assert words == [
        *("curl", "-X", "PUT", "$LLMD_URL/x", "-H", "Authorization: Bearer $LLMD_KEY"),
        *("-d", '{"text": "it\'s $HOME <b>`x`</b>"}'),
    ]


def test_the_commands_of_llmds_own_routes_work(service: Service, html: str) -> None:
    """Each command of llmd's own routes works as it stands on the page."""
    commands = Page(html).commands
    assert len(commands) == sum(len(route.operations) for route in routes(service.services))
    service.ask("POST", "/answer", {"prompt": "hi", "session_id": 1}, key=service.admin)
    refused = {}
    for command in commands:
        method, path, body = parse_command(command)
        if path.startswith(("/v1/", "/tokenize", "/detokenize", "/apply-template")):
            continue
        path = path.replace("0a1b2c3d4e5f", service.other_key.id)
        status = service.ask(method, path, body, key=service.admin).status_code
        if status >= 300:
            refused[method, path] = status
    # The selected profile cannot be deleted.
    assert refused == {("DELETE", "/profiles/default"): 409}


def parse_command(command: str) -> tuple[str, str, bytes | None]:
    """Return method, path and body of a command."""
    words = shlex.split(command.replace("\\\n", ""))
    [url] = [word for word in words if word.startswith("$LLMD_URL")]
    body = words[words.index("-d") + 1].encode() if "-d" in words else None
    plain = "GET" if body is None else "POST"
    method = words[words.index("-X") + 1] if "-X" in words else plain
    return method, url.removeprefix("$LLMD_URL"), body


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "text"),
        ({"type": "string", "minLength": 1}, "text, not empty"),
        ({"type": "string", "minLength": 1, "maxLength": 64}, "text, 1 to 64 characters"),
        ({"type": "integer", "minimum": 0}, "whole number, at least 0"),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, "whole number"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number, above 0, at most 1"),
        (
            {"type": "array", "items": {"type": "integer"}, "maxItems": 8},
            "list of whole number, at most 8 items",
        ),
        (
            {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
            "list of (text or whole number)",
        ),
        ({"type": "array"}, "list"),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "true or false or null"),
        ({"enum": ["a", None]}, '"a" or null'),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "object of number"),
        ({"type": "object"}, "object"),
        ({"$ref": "#/components/schemas/Usage"}, "Usage"),
        ({}, "anything"),
    ],
)
def test_a_type_is_described_in_words(schema: dict[str, Any], words: str) -> None:
    """A type is described in words, with its bounds."""
    assert "".join(part.text for part in describe_type(schema)) == words


def test_an_example_has_what_is_required_and_what_has_an_example() -> None:
    """An example has required fields and those with examples, and ends for a recursive type."""
    schemas: dict[str, Any] = {
        "Tree": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "examples": ["oak"]},
                "size": {"type": "integer", "minimum": 3},
                "kind": {"enum": ["big"]},
                "note": {"type": "string"},
                "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}},
            },
            "required": ["size", "kind", "parts"],
        }
    }
    made = example({"$ref": "#/components/schemas/Tree"}, schemas)
    assert {name: made[name] for name in ("name", "size", "kind")} == {
        "name": "oak",
        "size": 3,
        "kind": "big",
    }
    assert "note" not in made
    assert made["parts"][0]["size"] == 3
