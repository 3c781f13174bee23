"""Texts of a given number of tokens, the same in every run. No two begin with the same words."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable

from bench.load import Client, Json

NOUNS = """
answer apple autumn bag baker bank basket beach bell bird boat book bottle box branch bread bridge
brother bucket button cabin candle castle chair child church city cloud coat coffee corner cottage
cup daughter desert doctor dog door dream driver engine evening farm farmer father feather field
fire fish flag floor flower forest friend garden gate ghost girl glass grandmother hand harbour hat
hill horse hotel house island journey judge kettle key king kitchen knife ladder lake lamp letter
library lion machine map market melody message mirror moon morning mother mountain museum music
neighbour nest night ocean orchard owl painter paper path pencil piano picture pilot planet plate
pocket poem poet pond queen rabbit radio rain ring river road rock roof room rope sailor salt
school sea secret shadow sheep ship shoe shop shoulder silence sister snow soldier song spoon
spring square stable stairs star station stone storm story stranger street summer table tailor
teacher tent thief tower town traveller treasure tree valley village voice wagon wall watch water
wheel whisper wind window winter wolf wood word worker yard
""".split()  # noqa: SIM905  # as a list they would fill hundreds of lines
_ADJECTIVES = """
ancient angry bitter black blue bright broken calm careful cheap clean clever cold cool cruel dark
deep distant dry dusty early easy empty endless famous fast fine foreign fresh friendly gentle
golden good grand green grey happy hard heavy hidden high hollow honest hungry kind large late lazy
light little lonely long lost loud low lucky modern narrow new nice noisy old open pale patient
plain polite poor proud quick quiet rare red rich rough round sad safe sharp short silent silver
simple slow small smooth soft strange strong sudden sweet tall thick thin tired tiny warm weak
white wide wild wise wooden yellow young
""".split()  # noqa: SIM905  # as a list they would fill hundreds of lines
_VERBS = """
admired asked borrowed bought broke brought built called carried caught changed chose cleaned
closed counted covered crossed drew entered fed followed forgot found gave heard held helped hid
kept knew left lifted liked lost loved made met missed moved needed noticed opened painted passed
pulled pushed reached remembered repaired saved searched sent showed sold stole studied thanked
told took touched trusted turned visited waited watched wrote
""".split()  # noqa: SIM905  # as a list they would fill hundreds of lines
_PLACES = (
    "above the {}", "across the {}", "after the {}", "behind the {}", "beside the {}",
    "by the {}", "in the {}", "near the {}", "of the {}", "under the {}", "with a {}",
)  # fmt: skip
_ENDS = ("<|im_end|>", "<|endoftext|>", "</s>", "<end_of_turn>", "<eos>", "<|eot_id|>", "<|end|>")
"""Tokens that end an answer, as families of models spell them."""

_BEGINS = ("<|im_start|>", "<start_of_turn>", "<|start_header_id|>", "<s>", "<bos>")
"""Tokens that a model generates if it must not end. They have no text, so that the next turn
would lack them."""

_Key = tuple[Hashable, ...]


def sentence(dice: random.Random) -> str:
    """Return a random plain sentence of about a dozen tokens."""
    place = dice.choice(_PLACES).format(dice.choice(NOUNS))
    words = ("The", dice.choice(_ADJECTIVES), dice.choice(NOUNS), dice.choice(_VERBS))
    return " ".join([*words, f"the {dice.choice(_ADJECTIVES)} {dice.choice(NOUNS)} {place}."])


def words(key: _Key, num_words: int) -> str:
    """Return random nouns, the same for the same key."""
    dice = random.Random(repr(key))  # noqa: S311
    return " ".join(dice.choice(NOUNS) for _ in range(num_words))


def sentences(key: _Key, num_sentences: int) -> str:
    """Return random sentences, the same for the same key."""
    dice = random.Random(repr(key))  # noqa: S311
    return " ".join(sentence(dice) for _ in range(num_sentences))


class Prompts:
    """All texts of a run, so that every server gets the same prompts.

    The first server that needs a text counts its tokens, and must have `/tokenize`.
    """

    def __init__(self) -> None:
        self._texts: dict[_Key, str] = {}
        self._overhead: int | None = None
        self._ban: dict[str, float] | None = None

    async def question(self, client: Client, num_tokens: int, *key: Hashable) -> list[Json]:
        """Return a conversation of one question that has `num_tokens` with its template."""
        if self._overhead is None:
            empty = await self.rendered(client, [{"role": "user", "content": ""}], "empty")
            self._overhead = await count(client, empty)
        text = await self.text(client, num_tokens - self._overhead, *key)
        return [{"role": "user", "content": text}]

    async def text(self, client: Client, num_tokens: int, *key: Hashable) -> str:
        """Return a request for a story that has exactly `num_tokens`."""
        # Texts of different lengths differ from their first word on.
        full = (*key, num_tokens)

        def story(num_words: int) -> str:
            return f"{words(full, num_words).capitalize()}. Tell a long story with all these words."

        return await self._of_length(client, num_tokens, story, full)

    async def prose(self, client: Client, num_tokens: int, *key: Hashable) -> str:
        """Return sentences of `num_tokens`, or a few more."""
        full = (*key, num_tokens, "prose")
        num_sentences = max(1, num_tokens // 16)
        while full not in self._texts:
            text = sentences(key, num_sentences)
            if await count(client, text) >= num_tokens:
                self._texts[full] = text
            num_sentences += 1
        return self._texts[full]

    async def rendered(self, client: Client, messages: list[Json], *key: Hashable) -> str:
        """Return a conversation as the model's chat template writes it."""
        full = (*key, "rendered")
        if full not in self._texts:
            reply = await client.call("POST", "/apply-template", {"messages": messages})
            self._texts[full] = reply["prompt"]
        return self._texts[full]

    async def ban(self, client: Client) -> dict[str, float]:
        """Return the `logit_bias` that keeps an answer from ending early, and limits it to text."""
        if self._ban is None:
            tokens = [await _tokens(client, end) for end in (*_ENDS, *_BEGINS)]
            self._ban = {str(found[0]): -100.0 for found in tokens if len(found) == 1}
        return self._ban

    async def _of_length(
        self, client: Client, num_tokens: int, make: Callable[[int], str], key: _Key
    ) -> str:
        num_words, shorter = max(1, num_tokens - 16), ""
        for _ in range(12):
            if key in self._texts:
                break
            text = make(num_words)
            missing = num_tokens - await count(client, text)
            if missing == 0:
                self._texts[key] = text
            elif missing > 0:
                shorter = max(shorter, text, key=len)
            # Nearly every word is one token.
            num_words = max(1, num_words + missing)
        return self._texts.setdefault(key, shorter or make(1))


async def count(client: Client, text: str) -> int:
    """Return the number of tokens of a text."""
    return len(await _tokens(client, text))


async def _tokens(client: Client, text: str) -> list[int]:
    reply = await client.call("POST", "/tokenize", {"content": text})
    return list(reply["tokens"])
