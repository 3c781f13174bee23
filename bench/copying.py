"""Answers that mostly copy the prompt, which prompt lookup can predict, and free answers."""

from __future__ import annotations

import random
import re

from bench.prompts import NOUNS
from bench.results import RATE, SHARE, median
from bench.trial import Trial

_SHOWN_WORDS = 24
"""Number of words of the answer that are given: a small model copies only when it sees how."""


async def copy(trial: Trial) -> None:
    """Ask for an edited text, most of which is a copy, and for a text without a source."""
    sizes, client = trial.sizes, await trial.client()
    rates: dict[str, list[float]] = {"edited text": [], "free text": []}
    shares: list[float] = []
    for number in range(sizes.num_texts):
        key = ("copy", trial.round, number)
        text = await trial.prompts.prose(client, sizes.edited, *key)
        ask, wanted, begun = _edit(text)
        prompt = await trial.prompts.rendered(client, [{"role": "user", "content": ask}], *key)
        copied = await client.go_on(prompt + begun, sizes.long_answer)
        question = await trial.prompts.question(client, sizes.edited, *key)
        free = await client.chat(question, sizes.long_answer)
        for name, answer in zip(rates, (copied, free), strict=True):
            rates[name] += [one.decode_rate for one in trial.check([answer])]
        shares.append(_share_copied(copied.text, wanted))
    for name, found in rates.items():
        trial.add(name, RATE, median(found), RATE)
    trial.add("edited text", "really copied", median(shares), SHARE)


def _edit(text: str) -> tuple[str, str, str]:
    """Return the request for an edited text, the edited text, and its beginning."""
    found = [word for word in re.findall(r"\w+", text) if word in NOUNS]
    old = max(found, key=found.count)
    new = next(noun for noun in random.Random(text).sample(NOUNS, 9) if noun not in found)  # noqa: S311
    wanted = re.sub(rf"\b{old}\b", new, text)
    begun = " ".join(wanted.split(" ")[:_SHOWN_WORDS])
    ask = f'Write this text once more, with the word "{new}" instead of "{old}".\n\n{text}'
    return ask, wanted, begun


def _share_copied(answer: str, wanted: str) -> float:
    """Return the share of the answer's sequences of three words that the wanted text contains."""
    runs, known = _runs(answer), set(_runs(wanted))
    return sum(run in known for run in runs) / len(runs) if runs else 0.0


def _runs(text: str) -> list[tuple[str, ...]]:
    parts = text.split()
    return list(zip(parts, parts[1:], parts[2:], strict=False))
