"""Whether an answer begins within a thought."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmd.engine.protocol import ChatPrompt, Ending, Message, Part, Sampling, Submit
from llmd.worker.scheduling.intake import sequence_of
from llmd.worker.syntax import HERMES
from tests.support.fake_backend import FakeBackend


class _Backend(FakeBackend):
    """A backend whose chat template ends with a given text."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self.syntax = replace(HERMES, thought_start="<think>", thought_end="</think>")
        self._end = end

    def render(self, prompt: ChatPrompt) -> list[Part]:
        return [*super().render(prompt), Part(text=self._end)]


@pytest.mark.parametrize(
    ("end", "ending", "is_thinking"),
    [
        ("<think>\n", "answer", True),
        ("assistant", "answer", False),
        ("Hm", "reasoning", True),
        # The last message of the client ends so, and is text.
        ("I write <think>", "content", False),
    ],
)
def test_an_answer_begins_in_a_thought_where_the_prompt_leaves_one_open(
    end: str, ending: Ending, *, is_thinking: bool
) -> None:
    """A thought is open behind its marker, and if the answer continues a thought."""
    prompt = ChatPrompt([Message(role="user", content="hi")], ending=ending)
    request = Submit(id=1, owner="ann", prompt=prompt, sampling=Sampling(), max_tokens=9)
    assert sequence_of(_Backend(end), request, 0.0).is_thinking == is_thinking
