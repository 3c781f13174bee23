"""Build requests for the engine."""

from __future__ import annotations

import secrets

from llmd.chat.prompt import default_stop
from llmd.engine.engine import Request
from llmd.engine.protocol import Constraint, Prompt, Sampling
from llmd.store.profiles import Profile


def build_engine_request(
    profile: Profile,
    prompt: Prompt,
    *,
    owner: str,
    session: str,
    has_default_stop: bool,
    num_turns: int = 0,
    logit_bias: dict[int, float] | None = None,
    constraint: Constraint | None = None,
    num_logprobs: int | None = None,
) -> Request:
    """Return a request for the engine with the sampling, stop strings and limits of a profile.

    With `has_default_stop`, a profile without stop strings gets those of its template. If the
    profile has no seed, a random one is chosen; it can be read from the request's `sampling`.
    """
    stop = list(profile.stop)
    if not stop and has_default_stop:
        stop = default_stop(profile)
    return Request(
        owner=owner,
        session=session,
        prompt=prompt,
        num_turns=num_turns,
        sampling=Sampling(
            temperature=profile.temperature,
            top_p=profile.top_p,
            top_k=profile.top_k,
            min_p=profile.min_p,
            repeat_penalty=profile.repeat_penalty,
            presence_penalty=profile.presence_penalty,
            frequency_penalty=profile.frequency_penalty,
            seed=_random_seed() if profile.seed is None else profile.seed,
            logit_bias=logit_bias or {},
        ),
        max_tokens=profile.max_tokens,
        max_context_tokens=profile.n_ctx,
        stop=stop,
        constraint=constraint,
        num_logprobs=num_logprobs,
    )


def _random_seed() -> int:
    """Return an unpredictable seed. llama.cpp would replace 2**32 - 1 by a seed of its own."""
    return secrets.randbelow(2**32 - 1)
