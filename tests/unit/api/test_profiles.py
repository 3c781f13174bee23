"""`/profiles`: show, put, list and delete profiles."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llmd.store.profiles import Profile
from tests.support.service import Service


def admin_asks(service: Service, method: str, path: str, body: object = None) -> Any:
    """Send a request with the admin's key."""
    return service.ask(method, path, body, key=service.admin)


def test_a_profile_is_shown_with_all_its_fields(service: Service) -> None:
    """A profile is shown with its name, its revision and all its fields in one flat object."""
    shown = service.ask("GET", "/profiles/default").json
    fields = msgspec.json.decode(msgspec.json.encode(Profile()))
    assert shown == {"name": "default", "revision": 1, "updated_at": 0} | fields


def test_a_profile_is_put_whole(service: Service) -> None:
    """A profile is replaced as a whole. Each change makes a new revision."""
    body = {"temperature": 0.1, "stop": ["END"], "template": "Q: {input}"}
    made = admin_asks(service, "PUT", "/profiles/p", body)
    assert made.status_code == 200
    assert (made.json["name"], made.json["revision"], made.json["stop"]) == ("p", 1, ["END"])
    again = admin_asks(service, "PUT", "/profiles/p", body).json
    assert again["revision"] == 1
    changed = admin_asks(service, "PUT", "/profiles/p", {"top_k": 3}).json
    assert (changed["revision"], changed["temperature"], changed["top_k"]) == (2, 0.7, 3)
    assert changed["template"] is None
    assert service.ask("GET", "/profiles/p").json == changed


def test_a_profile_that_is_shown_can_be_put_again(service: Service) -> None:
    """The fields of a profile that is shown can be put as another profile."""
    shown = service.ask("GET", "/profiles/default").json
    body = {name: shown[name] for name in Profile.__struct_fields__}
    assert admin_asks(service, "PUT", "/profiles/copy", body).json["revision"] == 1
    assert service.profiles.get("copy").profile == service.profiles.get("default").profile


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"history_turns": -1}, "history_turns"),
        ({"template": "no place"}, "template"),
        ({"template": "{input}{input}"}, "template"),
        ({"model": "../x.gguf"}, "model"),
        ({"human_label": ""}, "human_label"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop": "END"}, "stop"),
        ({"system": "a\u0000b"}, "system"),
        ({"name": "x"}, "name"),
        ([], None),
    ],
)
def test_a_profile_out_of_its_bounds_is_refused(
    service: Service, body: object, param: str | None
) -> None:
    """A wrong field is a 422 with its name, and nothing is stored."""
    result = admin_asks(service, "PUT", "/profiles/p", body)
    assert service.code(result) == (422, "invalid_field")
    assert result.json["error"]["param"] == param
    assert service.code(service.ask("GET", "/profiles/p")) == (404, "profile_not_found")


@pytest.mark.parametrize("name", ["a%20b", ".x", "x" * 65, "é", "%00"])
def test_a_name_that_no_profile_may_have_is_refused(service: Service, name: str) -> None:
    """A name that no profile can have is a 422 for PUT and a 404 for GET."""
    result = admin_asks(service, "PUT", f"/profiles/{name}", {})
    assert service.code(result) == (422, "invalid_field")
    assert service.code(service.ask("GET", f"/profiles/{name}")) == (404, "profile_not_found")


def test_profiles_are_listed_by_name_in_pages(service: Service) -> None:
    """Profiles are listed by name in pages. `next` is the `after` of the next page."""
    for name in ("b", "a"):
        service.put_profile(name)
    page = service.ask("GET", "/profiles", query_string="limit=2").json
    assert ([at["name"] for at in page["profiles"]], page["next"]) == (["a", "b"], "b")
    page = service.ask("GET", "/profiles", query_string="limit=2&after=b").json
    assert ([at["name"] for at in page["profiles"]], page["next"]) == (["default"], None)


def test_a_profile_is_deleted(service: Service) -> None:
    """A profile can be deleted, except for the selected one."""
    service.put_profile("p")
    result = admin_asks(service, "DELETE", "/profiles/p")
    assert (result.status_code, result.content) == (204, b"")
    assert service.code(admin_asks(service, "DELETE", "/profiles/p")) == (404, "profile_not_found")
    result = admin_asks(service, "DELETE", "/profiles/default")
    assert service.code(result) == (409, "conflict")
