"""The table of routes, and the WSGI application made of it."""

from __future__ import annotations

from typing import Any

import falcon
import falcon.inspect
from falcon.routing import CompiledRouter

from llmd import config
from llmd.api import errors
from llmd.api.access import AccessMiddleware, AccessTable
from llmd.api.answer import ANSWER, AnswerResource
from llmd.api.docs.resource import with_docs
from llmd.api.health import HEALTH, LIVEZ, STATUS, HealthResource, LivezResource, StatusResource
from llmd.api.keys import (
    AUTH,
    AUTH_KEY,
    KEY,
    KEYS,
    AuthKeyResource,
    AuthResource,
    KeyResource,
    KeysResource,
)
from llmd.api.models import MODEL, MODELS, ModelResource, ModelsResource
from llmd.api.openai.routes import openai_routes
from llmd.api.profiles import PROFILE, PROFILES, ProfileResource, ProfilesResource
from llmd.api.route import Route
from llmd.api.services import Services
from llmd.api.sessions import SESSION, SESSIONS, SessionResource, SessionsResource
from llmd.api.states import STATES, StatesResource
from llmd.errors import UnknownRoute, printable

App = falcon.App[falcon.Request, falcon.Response]


class HeadRouter(CompiledRouter):
    """The router, for which every resource that answers GET answers HEAD too.

    Falcon sends the headers of the response to GET, and leaves out its body.
    """

    def map_http_methods(self, resource: object, **kwargs: Any) -> dict[str, Any]:
        """Return the methods that a resource answers, each with its responder."""
        methods: dict[str, Any] = super().map_http_methods(resource, **kwargs)
        if "GET" in methods:
            methods.setdefault("HEAD", methods["GET"])
        return methods


# Falcon describes only the routers that it knows.
falcon.inspect.register_router(HeadRouter)(falcon.inspect.inspect_compiled_router)


class PathMiddleware:
    """The check that a path has no empty segment, which Falcon partly ignores."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Raise `UnknownRoute` for a path such as ``//auth`` or ``/auth//``."""
        if "//" in req.env["PATH_INFO"]:
            raise UnknownRoute(f"there is no route {printable(req.env['PATH_INFO'])}")


def routes(services: Services) -> list[Route]:
    """Return every route of llmd."""
    s = services
    status = StatusResource(s.engine, s.admission, s.sessions, s.settings)
    table = [
        Route("/answer", AnswerResource(s.answers, s.sessions), ANSWER, tag="Answers"),
        *openai_routes(s),
        Route("/sessions", SessionsResource(s.sessions), SESSIONS, tag="Sessions"),
        Route(
            "/sessions/{session_id}",
            SessionResource(s.sessions, s.engine),
            SESSION,
            tag="Sessions",
        ),
        Route("/models", ModelsResource(s.library, s.models), MODELS, tag="Models"),
        Route("/models/model", ModelResource(s.selector), MODEL, tag="Models"),
        Route("/profiles", ProfilesResource(s.profiles), PROFILES, tag="Profiles"),
        Route("/profiles/{name}", ProfileResource(s.profiles, s.library), PROFILE, tag="Profiles"),
        Route("/auth", AuthResource(), AUTH, tag="Keys"),
        Route("/auth/key", AuthKeyResource(s.issuer), AUTH_KEY, tag="Keys"),
        Route("/keys", KeysResource(s.keys), KEYS, tag="Keys"),
        Route("/keys/{key_id}", KeyResource(s.keys, s.engine), KEY, tag="Keys"),
        Route("/status", status, STATUS, tag="State"),
        Route("/health", HealthResource(s.engine, s.embeddings, s.admission), HEALTH, tag="State"),
        Route("/states", StatesResource(s.queries), STATES, tag="State"),
        Route("/livez", LivezResource(), LIVEZ, tag="State"),
    ]
    return with_docs(table)


def create_access(services: Services, settings: config.Server) -> AccessMiddleware:
    """Return the middleware that checks the access to every route."""
    table: AccessTable = {}
    for route in routes(services):
        access = route.access
        # HEAD shows the headers of GET, so it requires the same.
        table[type(route.resource)] = access | ({"HEAD": access["GET"]} if "GET" in access else {})
    return AccessMiddleware(services.gate, table, settings.allowed_hosts)


def create_app(services: Services, access: AccessMiddleware, settings: config.Server) -> App:
    """Return the WSGI application."""
    app: App = falcon.App(
        middleware=[*_cors(settings.cors_origins), access, PathMiddleware()], router=HeadRouter()
    )
    app.req_options.strip_url_path_trailing_slash = True
    errors.register(app)
    for route in routes(services):
        for path in route.paths:
            app.add_route(path, route.resource)
    return app


def _cors(origins: tuple[str, ...]) -> list[Any]:
    """Return Falcon's CORS middleware, or none. Its types are those of ASGI, hence `Any`."""
    if not origins:
        return []
    allowed = "*" if "*" in origins else list(origins)
    return [falcon.CORSMiddleware(allow_origins=allowed, expose_headers=["x-request-id"])]
