"""Requests generated from the OpenAPI document: every response must be as described there."""

from __future__ import annotations

import itertools
import os
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, strategies
from schemathesis import APIOperation, Case, GenerationMode, HookContext
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.schemas import OpenApiSchema

from tests.clients.sdk import FRANCE, MODEL, connect, new_key
from tests.e2e.client import HOST, Client
from tests.e2e.daemon import Daemon, Starter
from tests.e2e.waiting import PATIENCE_S

pytestmark = pytest.mark.e2e

NUM_REQUESTS = int(os.environ.get("LLMD_FUZZ_REQUESTS", "300"))
"""The least number of requests. LLMD_FUZZ_REQUESTS=2000 makes a closer search."""

MAX_TOKENS = 4

Operation = APIOperation[Any, Any, Any, Any]

_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
_LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@pytest.fixture
def fuzzed(start_daemon: Starter) -> Daemon:
    """Provide a daemon with short answers and high limits for wrong keys."""
    daemon = start_daemon(
        engine={"context": 2048},
        auth={"max_failures_per_address": 10_000, "max_failures_per_key": 10_000},
    )
    daemon.put_profile(MODEL, temperature=0, max_tokens=MAX_TOKENS)
    selected = {"model": "a.gguf", "model_config": MODEL}
    assert daemon.client.call("POST", "/models/model", selected).status == 200
    return daemon


def _load(daemon: Daemon, key: str) -> OpenApiSchema:
    """Return the served document. About half of all names in requests will exist."""
    config = schemathesis.Config(seed=1)
    url = f"http://{HOST}:{daemon.port}/openapi.json"
    schema = schemathesis.openapi.from_url(url, config=config)
    # NUL is refused in every field, so requests with one would test nothing else.
    schema.config.generation.update(with_security_parameters=False, allow_x00=False)
    Client(daemon.port, key).ask(FRANCE, session_id="s")
    response = connect(daemon, key).responses.create(model=MODEL, input=FRANCE)
    known = {"session_id": "s", "response_id": response.id, "model_id": MODEL, "name": MODEL}

    @schema.hook("map_path_parameters")
    def find_what_is_there(
        context: HookContext, path_parameters: dict[str, Any] | None
    ) -> dict[str, Any]:
        return {
            name: known.get(name, value) if len(str(value)) % 2 else value
            for name, value in (path_parameters or {}).items()
        }

    @schema.hook("map_body")
    def reach_the_model(context: HookContext, body: Any) -> Any:
        return _reaching(body)

    return schema


def _reaching(body: Any) -> Any:
    """Return a body that is more likely to reach the model, and asks for few tokens there."""
    if not isinstance(body, dict):
        return body
    changed = dict(body)
    if isinstance(body.get("model"), str) and len(body["model"]) % 2 == 0:
        changed["model"] = MODEL
    for field in _LENGTHS:
        if isinstance(body.get(field), int):
            changed[field] = min(body[field], MAX_TOKENS)
    if isinstance(body.get("messages"), list):
        changed["messages"] = [
            {"content": FRANCE} | message if isinstance(message, dict) else message
            for message in body["messages"]
        ]
    return changed


def _operations(schema: OpenApiSchema) -> list[Operation]:
    """Return all operations; each must be described well enough to be called."""
    found: list[Operation] = []
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result.err()
        found.append(result.ok())
    return found


def _cases(operation: Operation) -> strategies.SearchStrategy[Case[Any]]:
    """Return requests that follow the document and, if there is anything to vary, others."""
    right = operation.as_strategy(GenerationMode.POSITIVE)
    if not (operation.body or operation.query):
        return right
    return right | operation.as_strategy(GenerationMode.NEGATIVE)


def test_every_response_is_as_described(fuzzed: Daemon, subtests: pytest.Subtests) -> None:
    """No request makes the server fail, and every response is as the document describes it."""
    key = new_key(fuzzed, "fuzzer")
    schema = _load(fuzzed, key)
    operations = _operations(schema)
    sent = 0
    for number in itertools.count():
        for operation in operations:

            @hypothesis.seed(number)
            @hypothesis.settings(
                max_examples=max(1, NUM_REQUESTS // len(operations)),
                database=None,
                deadline=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            )
            @hypothesis.given(case=_cases(operation))
            def ask(case: Case[Any]) -> None:
                nonlocal sent
                sent += 1
                case.call_and_validate(
                    headers={"Authorization": f"Bearer {key}"}, checks=_CHECKS, timeout=PATIENCE_S
                )

            with subtests.test(operation.label):
                ask()
        if sent >= NUM_REQUESTS:
            break
    assert fuzzed.client.ask("Say hello.")["result"] is not None
