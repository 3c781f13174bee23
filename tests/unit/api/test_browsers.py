"""Host names, pages of other origins, and the id of each response."""

from __future__ import annotations

import pytest

from llmd import config
from tests.support.service import Service
from tests.unit.conftest import MakeService


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("llm.lan", 200),
        ("LLM.lan", 200),
        ("llm.lan:5000", 200),
        ("10.0.0.7", 200),
        ("[fd00::7]", 200),
        ("[fd00::7]:5000", 200),
        ("evil.example", 403),
        ("evil.example:5000", 403),
        ("llm.lan.evil.example", 403),
        ("llm.lan@evil.example", 403),
        ("xllm.lan", 403),
        ("", 403),
        ("[fd00::8]", 403),
    ],
)
def test_only_allowed_hosts_are_answered(make_service: MakeService, host: str, status: int) -> None:
    """A request to a host name that is not allowed is refused, even for `/livez`."""
    names = ("llm.lan", "10.0.0.7", "[fd00::7]")
    service = make_service(server=config.Server(allowed_hosts=names))
    result = service.ask("GET", "/livez", key="", headers={"Host": host})
    assert result.status_code == status
    if status == 403:
        assert service.code(result) == (403, "forbidden")


def test_any_host_is_answered_by_default_and_after_the_list_is_emptied(
    make_service: MakeService,
) -> None:
    """Any host name is allowed by default. A changed list holds at once."""
    service = make_service()
    sent = {"Host": "any.example"}
    assert service.ask("GET", "/livez", headers=sent).status_code == 200
    service.access.allow_hosts(("llm.lan",))
    assert service.ask("GET", "/livez", headers=sent).status_code == 403
    service.access.allow_hosts(())
    assert service.ask("GET", "/livez", headers=sent).status_code == 200


ORIGIN = "https://chat.example.org"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type",
}


def cors_headers(headers: dict[str, str]) -> set[str]:
    """Return the names of the headers that allow access to pages of another origin."""
    return {name for name in headers if name.startswith("access-control-")}


def test_pages_of_other_origins_get_nothing_by_default(service: Service) -> None:
    """By default no response has a header that lets in pages of other origins."""
    assert not cors_headers(service.ask("OPTIONS", "/answer", key="", headers=PREFLIGHT).headers)
    assert not cors_headers(service.ask("GET", "/auth", headers={"Origin": ORIGIN}).headers)


def test_pages_of_a_configured_origin_are_let_in(make_service: MakeService) -> None:
    """A configured origin may send requests. Its preflight needs no key."""
    service = make_service(server=config.Server(cors_origins=(ORIGIN,)))
    result = service.ask("OPTIONS", "/answer", key="", headers=PREFLIGHT)
    assert result.status_code in {200, 204}
    assert result.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in result.headers["access-control-allow-methods"]
    assert "authorization" in result.headers["access-control-allow-headers"]
    result = service.ask("GET", "/auth", headers={"Origin": ORIGIN})
    assert result.headers["access-control-allow-origin"] == ORIGIN
    assert result.headers["access-control-expose-headers"] == "x-request-id"
    refused = service.ask("GET", "/auth", key="", headers={"Origin": ORIGIN})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == ORIGIN


def test_pages_of_another_origin_than_the_configured_stay_out(make_service: MakeService) -> None:
    """An origin that is not configured is not let in, even if it is similar."""
    service = make_service(server=config.Server(cors_origins=(ORIGIN,)))
    for origin in (ORIGIN + ".evil.example", "http://chat.example.org", "null"):
        result = service.ask("OPTIONS", "/answer", key="", headers=PREFLIGHT | {"Origin": origin})
        assert "access-control-allow-origin" not in result.headers


def test_a_star_lets_every_origin_in(make_service: MakeService) -> None:
    """The origin `*` lets in every origin."""
    service = make_service(server=config.Server(cors_origins=("*",)))
    result = service.ask("OPTIONS", "/answer", key="", headers=PREFLIGHT)
    assert result.headers["access-control-allow-origin"] == "*"


def test_every_response_carries_an_id_of_its_own(service: Service) -> None:
    """Every response has an id of its own, including refusals."""
    asked = [
        service.ask("GET", "/livez", key=""),
        service.ask("GET", "/livez", key=""),
        service.ask("POST", "/answer", {"prompt": "hi", "stream": True}),
        service.ask("POST", "/answer", b"junk"),
        service.ask("GET", "/auth", key=""),
        service.ask("GET", "/none"),
        service.ask("PUT", "/answer"),
        service.ask("OPTIONS", "/answer", key="", headers=PREFLIGHT),
        service.ask("DELETE", f"/keys/{service.other_key.id}", key=service.admin),
    ]
    ids = [result.headers["x-request-id"] for result in asked]
    assert len(set(ids)) == len(ids)
