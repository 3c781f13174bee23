"""The composition root: every part of the daemon is created and connected here.

The module imports neither waitress nor systemd, so that tests can build the same parts quickly.
"""

from __future__ import annotations

from pathlib import Path

from llmd.api.services import Services
from llmd.auth.gate import Gate
from llmd.auth.secret import Hasher
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
from llmd.chat.run import Runs
from llmd.config import Config
from llmd.engine.engine import Engine
from llmd.models.library import Library
from llmd.store.db import Database
from llmd.store.keys import Keys
from llmd.store.profiles import Profiles
from llmd.store.responses import Responses as ResponseStore
from llmd.store.sessions import Sessions
from llmd.store.settings import Settings


def build(settings: Config, db: Database, engine: Engine | None = None) -> Services:
    """Create the parts that the routes work with, and connect them.

    `engine` takes the place of the one that `settings` describe: tests pass a fake.
    """
    engine = engine or Engine(settings.engine, settings.cache)
    keys, profiles, sessions, stored = Keys(db), Profiles(db), Sessions(db), Settings(db)
    hasher = Hasher(settings.auth.argon2)
    admission = Admission(settings.server.max_streams, settings.server.max_queue)
    library = Library(Path(settings.models.dir), Path(settings.models.packaged_dir))
    models = ModelNames(engine, profiles, stored, library)
    runs = Runs(engine, admission)
    log_prompts = settings.log.prompts
    embedder = (
        Engine(settings.engine, settings.cache, embeds_only=True)
        if settings.models.embedding
        else None
    )
    return Services(
        gate=Gate(keys, hasher, settings=settings.auth),
        answers=Answers(runs, models, sessions, log_prompts=log_prompts),
        completions=Completions(runs, models, log_prompts=log_prompts),
        responses=Responses(runs, models, ResponseStore(db), engine, log_prompts=log_prompts),
        embeddings=Embeddings(engine, embedder, admission),
        queries=Queries(engine),
        retries=Retries(),
        models=models,
        selector=ModelSelector(
            engine,
            library,
            profiles,
            stored,
            default_model=settings.models.default,
            embedder=embedder,
            embedding_model=settings.models.embedding,
        ),
        issuer=KeyIssuer(keys, hasher),
        engine=engine,
        admission=admission,
        library=library,
        keys=keys,
        profiles=profiles,
        sessions=sessions,
        settings=stored,
    )
