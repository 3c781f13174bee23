"""Parse answers with calls and thoughts in tests."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from llmd.engine.protocol import Delta, Reasoning, Tool, Tools
from llmd.worker.answer.parser import AnswerEvent, AnswerParser
from llmd.worker.syntax import Syntax

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
}
TOOLS = Tools(tools=[Tool(name="weather", parameters=json.dumps(SCHEMA)), Tool(name="now")])
ARGUMENTS = '{"city": "K}ö\\"l{n", "days":  3}'
OBJECT = f'{{"name": "weather", "arguments": {ARGUMENTS}}}'
CALL = f"<tool_call>\n{OBJECT}\n</tool_call>"
LLAMA_CALL = f'{{"name": "weather", "parameters": {ARGUMENTS}}}'
CODER_CALL = (
    "<tool_call>\n<function=weather>\n<parameter=city>\nKöln\n</parameter>\n"
    "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>"
)
WEATHER = ("weather", ARGUMENTS)
CODER_ARGUMENTS = '{"city": "Köln", "days": 3}'


@dataclass
class Answer:
    """The result of parsing an answer, with its pieces joined."""

    text: str = ""
    thought: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)

    def add(self, event: AnswerEvent) -> None:
        if isinstance(event, Delta):
            assert event.text
            self.text += event.text
        elif isinstance(event, Reasoning):
            assert event.text
            self.thought += event.text
        elif event.name:
            assert event.index == len(self.calls)
            assert not event.arguments
            self.calls.append((event.name, ""))
        else:
            assert event.index == len(self.calls) - 1
            assert event.arguments
            name, arguments = self.calls.pop()
            self.calls.append((name, arguments + event.arguments))


def parser_of(
    syntax: Syntax,
    *,
    tools: Tools | None = TOOLS,
    is_thinking: bool = False,
    is_continued: bool = False,
) -> AnswerParser:
    """Return a parser for the answer to request 7."""
    return AnswerParser(
        syntax, request_id=7, tools=tools, is_thinking=is_thinking, is_continued=is_continued
    )


def parse(parser: AnswerParser, *chunks: str) -> Answer:
    """Return the result of parsing an answer that arrives in these chunks."""
    answer = Answer()
    events = [event for chunk in chunks for event in parser.push(chunk)]
    for event in events + parser.finish():
        assert event.id == 7
        answer.add(event)
    assert parser.has_calls == bool(answer.calls)
    return answer
