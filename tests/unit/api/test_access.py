"""The access to each route, and the forms in which a key is accepted."""

from __future__ import annotations

import re
from functools import partial

import pytest
from falcon import inspect

from llmd.api.app import routes
from tests.support.service import Service

# This repeats the table of routes, so that a change of access has to be made twice.
EXPECTED = {
    ("GET", "/livez"): "open",
    ("GET", "/health"): "open",
    ("GET", "/status"): "user",
    ("GET", "/states"): "admin",
    ("GET", "/answer"): "user",
    ("POST", "/answer"): "user",
    ("GET", "/models"): "user",
    ("POST", "/models/model"): "admin",
    ("GET", "/auth"): "user",
    ("POST", "/auth/key"): "admin",
    ("GET", "/keys"): "admin",
    ("GET", "/keys/{key_id}"): "admin",
    ("PATCH", "/keys/{key_id}"): "admin",
    ("DELETE", "/keys/{key_id}"): "admin",
    ("GET", "/sessions"): "user",
    ("GET", "/sessions/{session_id}"): "user",
    ("PATCH", "/sessions/{session_id}"): "user",
    ("DELETE", "/sessions/{session_id}"): "user",
    ("GET", "/profiles"): "user",
    ("GET", "/profiles/{name}"): "user",
    ("PUT", "/profiles/{name}"): "admin",
    ("DELETE", "/profiles/{name}"): "admin",
    ("POST", "/v1/chat/completions"): "user",
    ("POST", "/chat/completions"): "user",
    ("POST", "/v1/completions"): "user",
    ("POST", "/completions"): "user",
    ("POST", "/v1/embeddings"): "user",
    ("POST", "/embeddings"): "user",
    ("POST", "/v1/responses"): "user",
    ("GET", "/v1/responses/{response_id}"): "user",
    ("DELETE", "/v1/responses/{response_id}"): "user",
    ("GET", "/v1/models"): "user",
    ("GET", "/v1/models/{model_id:path}"): "user",
    ("POST", "/tokenize"): "user",
    ("POST", "/detokenize"): "user",
    ("POST", "/apply-template"): "user",
    ("GET", "/openapi.json"): "open",
    ("GET", "/docs"): "open",
}
# HEAD shows the headers of GET, so its access is the same.
WITH_HEAD = EXPECTED | {("HEAD", path): EXPECTED[(m, path)] for m, path in EXPECTED if m == "GET"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
PATHS = sorted({path for _, path in EXPECTED})


def filled(path: str) -> str:
    """Return a path with the names of things that do not exist."""
    return re.sub(r"{.*}", lambda place: "0" * 12 if "key" in place[0] else "no", path)


def status_of(service: Service, method: str, path: str, key: str) -> int:
    """Return the status of a request with a key."""
    return service.ask(method, filled(path), key=key).status_code


def test_the_table_has_the_expected_access(service: Service) -> None:
    """The routes require exactly the access that is expected, and there is no other route."""
    table = {
        (method, path): access.value
        for route in routes(service.services)
        for path in route.paths
        for method, access in route.access.items()
    }
    assert table == EXPECTED


def test_every_method_that_a_resource_has_is_in_the_table(service: Service) -> None:
    """The application has exactly the methods and paths that are expected."""
    found = {
        (method.method, route.path)
        for route in inspect.inspect_routes(service.app)
        for method in route.methods
        if not method.internal
    }
    assert found == set(WITH_HEAD)


@pytest.mark.parametrize("path", PATHS)
def test_each_key_opens_what_its_role_may_open(service: Service, path: str) -> None:
    """No key, a bad one, a user's and an admin's open the methods of a path as its access says."""
    revoked_key, revoked = service.issue("gone", "admin")
    service.keys.revoke(revoked_key.id, now=1, actor="cli")
    _, expired = service.issue("old", "admin", expires_in_s=1)
    wrong = service.admin[:-1] + ("0" if service.admin[-1] != "0" else "1")
    for method in METHODS:
        needed = WITH_HEAD.get((method, path))
        status = partial(status_of, service, method, path)
        if needed == "open":
            assert status("") == status("junk") == status(revoked) == 200
            continue
        for bad in ("", "junk", wrong, revoked, expired):
            assert status(bad) == 401, (method, bad)
        if needed is None:
            assert status(service.user) == status(service.admin) == 405
            continue
        assert (status(service.user) == 403) is (needed == "admin")
        assert status(service.user) != 401
        assert status(service.admin) not in {401, 403, 405, 500}


def test_a_refusal_does_not_tell_why(service: Service) -> None:
    """Unknown, revoked, expired and mistyped keys are refused with the same body."""
    revoked_key, revoked = service.issue("gone", "user")
    service.keys.revoke(revoked_key.id, now=1, actor="cli")
    _, expired = service.issue("old", "user", expires_in_s=1)
    other = service.user[:18] + service.other[18:]
    bodies = {
        service.ask("GET", "/auth", key=key).text for key in ("", "junk", revoked, expired, other)
    }
    assert len(bodies) == 1


def test_a_revoked_key_is_refused_at_its_next_request(service: Service) -> None:
    """A revoked key is refused at the next request."""
    assert service.ask("GET", "/auth").status_code == 200
    service.keys.revoke(service.user_key.id, now=1, actor="cli")
    assert service.ask("GET", "/auth").status_code == 401


def test_a_lost_role_is_refused_at_the_next_request(service: Service) -> None:
    """An admin key that becomes a user's is refused by admin routes at the next request."""
    second_key, second = service.issue("second", "admin")
    assert service.ask("GET", "/keys", key=second).status_code == 200
    service.keys.update(second_key.id, role="user", actor="cli", now=1)
    assert service.ask("GET", "/keys", key=second).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/keys/",
        "//keys",
        "///keys//",
        "/%6beys",
        "/keys/%2e",
        "/keys/.",
        "/keys;x",
        "/KEYS",
        "/livez/../keys",
        "/livez/%2e%2e/keys",
        "/keys?x=/livez",
        "/livez/keys",
        "/%2fkeys",
        "/keys%00",
        "/auth/key/",
        "//auth//key",
    ],
)
def test_no_other_spelling_of_a_path_gets_around_the_key(service: Service, path: str) -> None:
    """Another spelling of a path is the same route with the same access, or no route."""
    path, _, query = path.partition("?")
    for method in ("GET", "POST"):
        for key, good in (("", {401, 404}), (service.user, {403, 404, 405})):
            result = service.ask(method, path, key=key, query_string=query)
            assert result.status_code in good, (method, key)


def test_a_trailing_slash_is_ignored(service: Service) -> None:
    """A path with a trailing slash is the same route."""
    assert service.ask("GET", "/auth/").json["auth"] is True
    assert service.ask("POST", "/answer/", {"prompt": "hi"}).status_code == 200


@pytest.mark.parametrize(
    "path", ["//auth", "/auth//", "/auth//key", "//", "/sessions//1", "///auth"]
)
def test_a_path_with_an_empty_segment_is_no_route(service: Service, path: str) -> None:
    """No slash too many is passed over but one at the end, whatever key is sent."""
    for method in ("GET", "HEAD", "POST"):
        result = service.ask(method, path, key=service.admin)
        assert result.status_code == 404
    assert service.code(service.ask("GET", path)) == (404, "unknown_route")


@pytest.mark.parametrize("path", ["/livez", "/health", "/models", "/openapi.json", "/v1/models"])
def test_head_is_get_without_its_body(service: Service, path: str) -> None:
    """HEAD is answered with the headers of GET, and OPTIONS lists it."""
    got, head = service.ask("GET", path), service.ask("HEAD", path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    for name in ("content-type", "content-length"):
        assert head.headers[name] == got.headers[name]
    assert {"GET", "HEAD"} <= set(service.ask("OPTIONS", path).headers["allow"].split(", "))


@pytest.mark.parametrize(
    "form",
    [
        "Authorization:{}",
        "Authorization:Bearer {}",
        "Authorization:bearer {}",
        "Authorization:BEARER   {}",
        "Authorization: {} ",
        "x-api-key:{}",
        "X-API-KEY:{}",
    ],
)
def test_a_key_comes_in_each_form_that_clients_send(service: Service, form: str) -> None:
    """A key is accepted bare, as Bearer in any case, and as x-api-key."""
    name, value = form.format(service.user).split(":", 1)
    result = service.ask("GET", "/auth", key="", headers={name: value})
    assert result.status_code == 200


@pytest.mark.parametrize(
    "value", ["Basic {}", "Bearer", "Bearer ", "Bearer {} x", "{}x", "Token {}", "Bearer,{}", "é"]
)
def test_no_other_form_of_a_key_opens(service: Service, value: str) -> None:
    """Another form of the Authorization header is refused, even if it contains a valid key."""
    sent = {"Authorization": value.format(service.user)}
    assert service.ask("GET", "/auth", key="", headers=sent).status_code == 401


def test_a_key_in_the_url_opens_nothing(service: Service) -> None:
    """A key in the query is ignored, because URLs end up in logs and histories."""
    for name in ("key", "api_key", "access_token", "authorization"):
        result = service.ask("GET", "/auth", key="", params={name: service.user})
        assert result.status_code == 401


def test_too_many_wrong_keys_make_their_sender_wait(service: Service) -> None:
    """Too many wrong keys get a 429 with `Retry-After`, while a key in use still works."""
    assert service.ask("GET", "/auth").status_code == 200
    statuses = []
    for _ in range(12):
        key, text = service.issue("x", "user")
        service.keys.revoke(key.id, now=1, actor="cli")
        statuses.append(service.ask("GET", "/auth", key=text))
    assert service.code(statuses[0]) == (401, "invalid_api_key")
    assert service.code(statuses[-1]) == (429, "too_many_failures")
    assert int(statuses[-1].headers["retry-after"]) > 0
    assert service.ask("GET", "/auth").status_code == 200
