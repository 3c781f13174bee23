"""The parts of the daemon that the routes use."""

from __future__ import annotations

from dataclasses import dataclass

from llmd.auth.gate import Gate
from llmd.chat.admission import Admission
from llmd.chat.answers import Answers
from llmd.chat.completions import Completions
from llmd.chat.embeddings import Embeddings
from llmd.chat.key_issue import KeyIssuer
from llmd.chat.model_names import ModelNames
from llmd.chat.model_selection import ModelSelector
from llmd.chat.queries import Queries
from llmd.chat.responses import Responses
from llmd.chat.retries import Retries
from llmd.engine.engine import Engine
from llmd.models.library import Library
from llmd.store.keys import Keys
from llmd.store.profiles import Profiles
from llmd.store.sessions import Sessions
from llmd.store.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Services:
    """All objects that the routes use. The daemon makes them."""

    gate: Gate
    answers: Answers
    completions: Completions
    responses: Responses
    embeddings: Embeddings
    queries: Queries
    retries: Retries
    models: ModelNames
    selector: ModelSelector
    issuer: KeyIssuer
    engine: Engine
    admission: Admission
    library: Library
    keys: Keys
    profiles: Profiles
    sessions: Sessions
    settings: Settings
