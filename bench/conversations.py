"""Conversations of many turns: the time to the first token of the next turn."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from bench.load import Answer, Client, Json
from bench.results import SHARE, median, timing
from bench.trial import Trial


async def session(trial: Trial) -> None:
    """Hold one long conversation; measure the time to the first token of its turns."""
    sizes, client = trial.sizes, await trial.client()
    texts = [
        await trial.prompts.text(client, sizes.turn, "session", trial.round, turn)
        for turn in range(max(sizes.turns))
    ]
    messages: list[Json] = []
    first_s: dict[int, float] = {}
    began = time.perf_counter()
    for turn, text in enumerate(texts, 1):
        answer = await _next_turn(trial, client, messages, text, f"session-{trial.round}")
        if answer.error:
            return
        first_s[turn] = answer.first_s
        if turn in sizes.turns:
            trial.add_first(f"turn {turn}", "first token", answer)
            trial.add(f"turn {turn}", "since turn 1", time.perf_counter() - began, "s")
    early, *_, late = sizes.turns
    trial.add(f"turn {late}", f": turn {early}", first_s[late] / first_s[early], SHARE)


async def window(trial: Trial) -> None:
    """Hold conversations that llmd stores and that do not fit into the prompt as a whole.

    In the first, the profile limits the prompt to the usual 5 turns; in the second, the context
    is the limit. llmd leaves out old turns in blocks, so that most turns continue from the
    computed state. The mean includes the turns at which the rest must be computed again.
    """
    client = await trial.client()
    for num_turns, note in ((5, "5 kept"), (max(trial.sizes.turns), "context full")):
        await _outgrow(trial, client, num_turns, note)


async def _outgrow(trial: Trial, client: Client, num_turns: int, note: str) -> None:
    sizes = trial.sizes
    await client.call(
        "PUT", f"/profiles/{num_turns}", {"history_turns": num_turns, "temperature": 0}
    )
    early, *_, late = sizes.turns
    last = late + sizes.turns_around
    first_s: list[float] = []
    for turn in range(1, last + 1):
        text = await trial.prompts.text(client, sizes.turn, note, trial.round, turn)
        answer = await client.say(f"keep-{num_turns}", text, str(num_turns), sizes.answer)
        if not trial.check([answer]):
            return
        first_s.append(answer.first_s)
    found: list[float] = []
    for turn in (early, late):
        around = first_s[turn - sizes.turns_around - 1 : turn + sizes.turns_around]
        found.append(median(around))
        at = f"turn {turn}, {note}"
        trial.add(at, "first token, median around", 1000 * median(around), "ms")
        trial.add(at, "first token, mean around", 1000 * sum(around) / len(around), "ms")
    trial.add(f"turn {late}, {note}", f": turn {early}", found[1] / found[0], SHARE)


async def juggle(trial: Trial) -> None:
    """Hold more conversations in turns than there are sequences."""
    sizes, client = trial.sizes, await trial.client()
    conversations: list[list[Json]] = [[] for _ in range(sizes.sessions)]
    locks = [asyncio.Lock() for _ in conversations]

    async def turn(number: int, text: str) -> Answer:
        async with locks[number]:
            name = f"juggle-{trial.round}-{number}"
            return await _next_turn(trial, client, conversations[number], text, name)

    requests = [
        partial(
            turn,
            number,
            await trial.prompts.text(client, sizes.turn, "juggle", trial.round, each, number),
        )
        for each in range(sizes.turns_each)
        for number in range(sizes.sessions)
    ]
    answers, wall_s = await trial.together(sizes.sequences, list(requests))
    at = f"{sizes.sessions} sessions, {sizes.sequences} sequences"
    trial.add(at, "all turns", wall_s, "s")
    # The first turns have no state to continue from.
    later = [answer for answer in answers[sizes.sessions :] if not answer.error]
    trial.readings += timing(at, later, wall_s)[1:]


async def restart(trial: Trial) -> None:
    """Ask long questions, restart the server, and continue the conversations."""
    sizes, client = trial.sizes, await trial.client()
    more = await trial.prompts.text(client, sizes.turn, "restart", trial.round)
    conversations: dict[int, list[Json]] = {}
    cold: dict[int, Answer] = {}
    for num_tokens in sizes.histories:
        messages = await trial.prompts.question(client, num_tokens, "restart", trial.round)
        name = f"restart-{trial.round}-{num_tokens}"
        answer = await client.chat(messages, sizes.answer, conversation=name)
        if not trial.check([answer]):
            return
        cold[num_tokens] = answer
        conversations[num_tokens] = [*messages, {"role": "assistant", "content": answer.text}]
    client.close()
    trial.server.stop()
    trial.server.start()
    client = await trial.client(warm_up=False)
    for num_tokens, messages in conversations.items():
        name = f"restart-{trial.round}-{num_tokens}"
        answer = await _next_turn(trial, client, messages, more, name)
        if answer.error:
            return
        at, before = f"{num_tokens} tokens", cold[num_tokens]
        trial.add_first(at, "first token, cold", before)
        trial.add_first(at, "first token, restarted", answer)
        trial.add(at, "restarted : cold", answer.first_s / before.first_s, SHARE)


async def _next_turn(
    trial: Trial, client: Client, messages: list[Json], text: str, name: str
) -> Answer:
    """Add a turn to a conversation, which the client sends as a whole."""
    messages.append({"role": "user", "content": text})
    answer = await client.chat(messages, trial.sizes.answer, conversation=name)
    messages.append({"role": "assistant", "content": answer.text})
    trial.check([answer])
    return answer
