"""Many answers at once: tokens per second, time to the first token, and gaps between tokens."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from bench.alone import Alone
from bench.decode_alone import DecodeAlone
from bench.load import Answer, Client, Json
from bench.results import RATE, SHARE, median, percentile, timing
from bench.servers import PACKAGED_WEIGHT
from bench.trial import Trial, neighbour


async def load(trial: Trial) -> None:
    """Let 1 to many clients ask, all at once, and each again as soon as it has its answer."""
    client = await trial.client()
    for num_clients in trial.sizes.clients:
        await _load_of(trial, client, num_clients, "")


async def limit(trial: Trial) -> None:
    """Measure the same load, and the time that its batches alone take.

    For the latter, all prompts are read together and then all answers are generated in step. No
    server without drafts can do the same work in less time.
    """
    sizes = trial.sizes
    if not isinstance(trial.server, DecodeAlone):
        await load(trial)
        return
    num_prompt = sizes.prompt - sizes.shared
    rates = trial.server.measure_load(sizes.clients, sizes.shared, num_prompt, sizes.answer)
    for num_clients, rate in rates.items():
        trial.add(_clients(num_clients), RATE, rate, RATE)


async def busy(trial: Trial) -> None:
    """Let clients ask while all cores are free, and while another process keeps one core busy.

    First both processes have the same CPU weight, then the server has that of llmd's package.
    """
    client = await trial.client()
    for weight in ("", f", weight {PACKAGED_WEIGHT}"):
        if weight and not trial.server.outweigh():
            return
        for num_clients in trial.sizes.busy_clients:
            at = _clients(num_clients) + weight
            quiet = await _rate_for_a_while(trial, client, num_clients, f"quiet{weight}")
            with neighbour():
                taken = await _rate_for_a_while(trial, client, num_clients, f"busy{weight}")
            trial.add(at, "tok/s, quiet", quiet, RATE)
            trial.add(at, "tok/s, busy", taken, RATE)
            if quiet:
                trial.add(at, "busy : quiet", taken / quiet, SHARE)


async def _rate_for_a_while(trial: Trial, client: Client, num_clients: int, note: str) -> float:
    """Return the tokens per second until all answers are complete, or `busy_s` have passed.

    The work is the same at any speed: within a fixed time, a slow server would mostly read prompts,
    which produces no tokens.
    """
    sizes = trial.sizes
    questions = [
        await trial.prompts.question(client, sizes.prompt, "busy", trial.round, note, number)
        for number in range(num_clients)
    ]
    answers, asked = _begin(client, questions, sizes.busy_tokens // num_clients)
    began = time.perf_counter()
    await asyncio.wait(asked, timeout=sizes.busy_s)
    rate = sum(len(answer.times) for answer in answers) / (time.perf_counter() - began)
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    trial.errors += [answer.error for answer in answers if answer.error]
    return rate


async def stall(trial: Trial) -> None:
    """Send a long prompt while other answers run; find the longest pause in these."""
    sizes, client = trial.sizes, await trial.client()
    questions = [
        await trial.prompts.question(client, sizes.prompt, "stall", trial.round, number)
        for number in range(sizes.streams)
    ]
    long = await trial.prompts.question(client, sizes.intruder, "stall", trial.round)
    answers, streams = _begin(client, questions, sizes.stream_answer)
    await asyncio.gather(*(answer.is_under_way.wait() for answer in answers))
    arrived = time.perf_counter()
    intruder = await client.chat(long, 8)
    await asyncio.gather(*streams)
    if not trial.check([intruder]) or len(trial.check(answers)) < len(answers):
        return
    if min(answer.times[-1] for answer in answers) < intruder.times[0]:
        trial.errors.append("a stream ended before the long prompt was read")
    gaps_ms = [gap * 1000 for answer in answers for gap in answer.gaps_s(arrived)]
    at = f"{sizes.intruder} tokens come to {sizes.streams} streams"
    trial.add(at, "worst gap", max(gaps_ms), "ms")
    trial.add(at, "gap p95", percentile(gaps_ms, 0.95), "ms")
    trial.add(at, "its first token", intruder.first_s * 1000, "ms")


def _begin(
    client: Client, questions: list[list[Json]], num_tokens: int
) -> tuple[list[Answer], list[asyncio.Task[Answer]]]:
    """Ask all questions at once. Return the answers, which are being filled, and their tasks."""
    answers = [Answer(num_tokens) for _ in questions]
    asked = [
        asyncio.create_task(client.chat(question, num_tokens, answer=answer))
        for question, answer in zip(questions, answers, strict=True)
    ]
    return answers, asked


async def batch(trial: Trial) -> None:
    """Generate many answers in parallel; count tokens while all of them are running."""
    sizes = trial.sizes
    if isinstance(trial.server, Alone):
        rates = trial.server.measure(sizes.batches, sizes.batch_prompt, sizes.batch_answer)
        for size, rate in rates.items():
            trial.add(f"{size} side by side", RATE, rate, RATE)
        return
    client = await trial.client()
    for size in sizes.batches:
        requests = [
            partial(client.chat, question, sizes.batch_answer)
            for number in range(size)
            for question in [
                await trial.prompts.question(
                    client, sizes.batch_prompt, "batch", trial.round, size, number
                )
            ]
        ]
        answers = trial.check((await trial.together(size, list(requests)))[0])
        if len(answers) < size:
            return
        since = max(answer.times[0] for answer in answers)
        until = min(answer.times[-1] for answer in answers)
        num_tokens = sum(answer.num_between(since, until) for answer in answers)
        trial.add(f"{size} side by side", RATE, num_tokens / (until - since), RATE)


async def _load_of(trial: Trial, client: Client, num_clients: int, note: str) -> float:
    """Measure a load of `num_clients`; return its tokens per second."""
    sizes = trial.sizes
    num_requests = max(sizes.requests_each * num_clients, sizes.min_requests)
    key = ("load", trial.round, num_clients, note)
    requests = [
        partial(client.chat, question, sizes.answer)
        for number in range(num_requests)
        for question in [await trial.prompts.question(client, sizes.prompt, *key, number)]
    ]
    answers, wall_s = await trial.together(num_clients, list(requests))
    at = _clients(num_clients) + note
    # The requests of the first wave all came at the same time.
    at_once = median(one.first_s * 1000 for one in answers[:num_clients] if not one.error)
    whole = trial.check(answers)
    readings = timing(at, whole, wall_s)
    trial.readings += readings
    trial.add(at, "first token p50, at once", at_once, "ms")
    return readings[0].value


def _clients(number: int) -> str:
    return "1 client" if number == 1 else f"{number} clients"
