"""The scenarios. Each one sends requests to one server and adds its readings to the trial."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Struct

from bench.conversations import juggle, restart, session, window
from bench.copying import copy
from bench.crowds import batch, busy, limit, load, stall
from bench.servers import Need
from bench.trial import Sizes, Trial

_SPARE = 128
"""Spare tokens of a sequence, for templates and answers that are sent back."""


class Scenario(Struct, frozen=True, kw_only=True):
    """A measurement: what a server needs for it, and which servers it compares."""

    name: str
    title: str
    need: Callable[[Sizes], Need]
    run: Callable[[Trial], Coroutine[Any, Any, None]]
    tries_slots: bool = False
    """Whether the peer is measured with several numbers of slots."""
    restarts: bool = False
    llmd_only: bool = False
    with_lookup_off: bool = False
    """Whether llmd is also measured without drafts."""
    with_decode_alone: bool = False
    """Whether llama.cpp's decode is also measured without a server."""
    is_extra: bool = False
    """Whether the scenario runs only if it is named."""
    batched_bench_only: bool = False
    """Whether llmd's engine, without drafts, is compared with llama-batched-bench only."""


def _for_turns(sizes: Sizes, num_turns: int) -> int:
    return num_turns * (sizes.turn + sizes.answer + 12) + _SPARE


def _for_one(sizes: Sizes) -> int:
    return sizes.prompt + sizes.answer + _SPARE


SCENARIOS = (
    Scenario(
        name="load",
        title="Many clients",
        need=lambda s: Need(slots=max(s.clients), tokens_per_slot=_for_one(s)),
        run=load,
        tries_slots=True,
    ),
    Scenario(
        name="limit",
        title="Many clients, and their batches alone",
        need=lambda s: Need(slots=max(s.clients), tokens_per_slot=_for_one(s)),
        run=limit,
        tries_slots=True,
        with_decode_alone=True,
        is_extra=True,
    ),
    Scenario(
        name="session",
        title="One long conversation",
        need=lambda s: Need(slots=2, tokens_per_slot=_for_turns(s, max(s.turns))),
        run=session,
    ),
    Scenario(
        name="window",
        title="A conversation that outgrows the context",
        need=lambda s: Need(slots=1, tokens_per_slot=_for_turns(s, max(s.turns)) // 4),
        run=window,
        llmd_only=True,
    ),
    Scenario(
        name="juggle",
        title="More conversations than sequences",
        need=lambda s: Need(slots=s.sequences, tokens_per_slot=_for_turns(s, s.turns_each)),
        run=juggle,
    ),
    Scenario(
        name="restart",
        title="The next turn after a restart",
        need=lambda s: Need(
            slots=2, tokens_per_slot=max(s.histories) + _for_turns(s, 2) + s.answer
        ),
        run=restart,
        restarts=True,
    ),
    Scenario(
        name="copy",
        title="An edited text and a free text",
        need=lambda s: Need(slots=2, tokens_per_slot=3 * s.edited + s.long_answer + _SPARE),
        run=copy,
        with_lookup_off=True,
    ),
    Scenario(
        name="stall",
        title="A long prompt among running answers",
        need=lambda s: Need(
            slots=s.streams + 1, tokens_per_slot=s.intruder + s.stream_answer + _SPARE
        ),
        run=stall,
    ),
    Scenario(
        name="busy",
        title="Another process that takes one core",
        need=lambda s: Need(
            slots=max(s.busy_clients),
            tokens_per_slot=s.prompt + s.busy_tokens // min(s.busy_clients) + _SPARE,
        ),
        run=busy,
    ),
    Scenario(
        name="batch",
        title="Generation alone, side by side",
        need=lambda s: Need(
            slots=max(s.batches), tokens_per_slot=s.batch_prompt + s.batch_answer + _SPARE
        ),
        run=batch,
        batched_bench_only=True,
    ),
)
