"""The table of routes, each with the access that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import falcon

from llmd import config
from llmd.api import errors
from llmd.api.access import Access, AccessMiddleware, AccessTable
from llmd.api.answer import AnswerResource
from llmd.api.health import HealthResource, LivezResource, StatusResource
from llmd.api.keys import AuthKeyResource, AuthResource, KeyResource, KeysResource
from llmd.api.models import ModelResource, ModelsResource
from llmd.api.profiles import ProfileResource, ProfilesResource
from llmd.api.sessions import SessionResource, SessionsResource
from llmd.auth.gate import Gate
from llmd.chat.admission import Admission
from llmd.chat.answers import Answers
from llmd.chat.key_issue import KeyIssuer
from llmd.chat.selection import Selector
from llmd.engine.engine import Engine
from llmd.models.library import Library
from llmd.store.keys import Keys
from llmd.store.profiles import Profiles
from llmd.store.sessions import Sessions
from llmd.store.settings import Settings

App = falcon.App[falcon.Request, falcon.Response]


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the routes work with, made by the daemon."""

    gate: Gate
    answers: Answers
    selector: Selector
    issuer: KeyIssuer
    engine: Engine
    admission: Admission
    library: Library
    keys: Keys
    profiles: Profiles
    sessions: Sessions
    settings: Settings


@dataclass(frozen=True)
class Route:
    """A path, what answers there, and who may use each method."""

    path: str
    resource: object
    access: dict[str, Access]


def routes(services: Services) -> list[Route]:
    """Return every route of llmd."""
    s = services
    user, admin, everyone = Access.USER, Access.ADMIN, {"GET": Access.OPEN}
    return [
        Route("/livez", LivezResource(), everyone),
        Route("/health", HealthResource(s.engine, s.admission), everyone),
        Route(
            "/status",
            StatusResource(s.engine, s.admission, s.sessions, s.settings),
            {"GET": user},
        ),
        Route("/answer", AnswerResource(s.answers, s.sessions), {"GET": user, "POST": user}),
        Route("/models", ModelsResource(s.library), {"GET": user}),
        Route("/models/model", ModelResource(s.selector), {"POST": admin}),
        Route("/auth", AuthResource(), {"GET": user}),
        Route("/auth/key", AuthKeyResource(s.issuer), {"POST": admin}),
        Route("/keys", KeysResource(s.keys), {"GET": admin}),
        Route(
            "/keys/{key_id}",
            KeyResource(s.keys, s.engine),
            {"GET": admin, "PATCH": admin, "DELETE": admin},
        ),
        Route("/sessions", SessionsResource(s.sessions), {"GET": user}),
        Route(
            "/sessions/{session_id}",
            SessionResource(s.sessions, s.engine),
            {"GET": user, "PATCH": user, "DELETE": user},
        ),
        Route("/profiles", ProfilesResource(s.profiles), {"GET": user}),
        Route(
            "/profiles/{name}",
            ProfileResource(s.profiles),
            {"GET": user, "PUT": admin, "DELETE": admin},
        ),
    ]


def create_access(services: Services, settings: config.Server) -> AccessMiddleware:
    """Return what stands before every route."""
    table: AccessTable = {type(route.resource): route.access for route in routes(services)}
    return AccessMiddleware(services.gate, table, settings.allowed_hosts)


def create_app(services: Services, access: AccessMiddleware, settings: config.Server) -> App:
    """Return the WSGI application."""
    app: App = falcon.App(middleware=[*_cors(settings.cors_origins), access])
    app.req_options.strip_url_path_trailing_slash = True
    errors.register(app)
    for route in routes(services):
        app.add_route(route.path, route.resource)
    return app


def _cors(origins: tuple[str, ...]) -> list[Any]:
    """Return Falcon's middleware, whose types are of its ASGI side."""
    if not origins:
        return []
    allowed = "*" if "*" in origins else list(origins)
    return [falcon.CORSMiddleware(allow_origins=allowed, expose_headers=["x-request-id"])]
