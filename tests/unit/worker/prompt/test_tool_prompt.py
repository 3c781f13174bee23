from __future__ import annotations

import json

import pytest

from llmd.engine.protocol import Call, CallDelta, Message, Tool, Tools
from llmd.errors import InvalidField
from llmd.worker.answer.parser import AnswerParser
from llmd.worker.prompt.forms import tool_dicts
from llmd.worker.prompt.tool_prompt import plain_messages
from llmd.worker.syntax import HERMES

SCHEMA = '{"type": "object", "properties": {"city": {"type": "string"}}}'
TOOLS = Tools(
    tools=[Tool(name="weather", description="Wetter für <b>", parameters=SCHEMA), Tool(name="now")]
)
USER = Message(role="user", content="Is it warm?", turn=3)


def _call(arguments: str = '{"city": "Köln"}', call_id: str = "call_1") -> Call:
    return Call(name="weather", arguments=arguments, id=call_id)


def _result(content: str, turn: int = -1) -> Message:
    return Message(role="tool", content=content, turn=turn, call_id="call_1", name="weather")


def test_tools_are_described_at_the_end_of_the_system_message() -> None:
    """The tools are appended to an existing system message, one line of JSON for each."""
    system = Message(role="system", content="Be brief.")
    first, *others = plain_messages([system, USER], TOOLS)
    assert others == [USER]
    assert first.role == "system"
    assert first.content.startswith("Be brief.\n\n")
    lines = first.content.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    assert [json.loads(line) for line in lines] == tool_dicts(TOOLS)
    assert "Wetter für <b>" in first.content


def test_system_message_is_made_where_there_is_none() -> None:
    """Without a system message, one is added that equals an empty one with the tools."""
    made, *others = plain_messages([USER], TOOLS)
    assert others == [USER]
    assert (made.role, made.turn) == ("system", -1)
    assert plain_messages([Message(role="system", content=""), USER], TOOLS) == [made, USER]


@pytest.mark.parametrize("required", [False, True])
def test_description_depends_on_nothing_but_the_tools(*, required: bool) -> None:
    """The text does not depend on `required` or `parallel`, so that its KV can be reused."""
    other = Tools(tools=TOOLS.tools, required=required, parallel=not required)
    assert plain_messages([USER], other)[0] == plain_messages([USER], TOOLS)[0]


def test_example_in_the_description_is_in_the_form_that_is_parsed() -> None:
    """The parser of answers can parse the example call in the prompt."""
    text = plain_messages([USER], TOOLS)[0].content
    example = text[text.index(HERMES.call_start_marker) : text.index(HERMES.call_end_marker)]
    parser = AnswerParser(
        HERMES, request_id=1, tools=Tools(tools=[Tool(name="the tool's name")]), is_thinking=False
    )
    assert CallDelta(id=1, index=0, name="the tool's name") in parser.push(example)


def test_old_calls_are_text_as_the_model_wrote_it() -> None:
    """A call is written behind the message's content, with its arguments unchanged."""
    message = Message(role="assistant", content="Let me see.", turn=1, calls=[_call(), _call("")])
    (plain,) = plain_messages([message], None)
    assert plain == Message(
        role="assistant",
        content=(
            "Let me see.\n"
            '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>'
        ),
        turn=1,
    )
    (plain,) = plain_messages([Message(role="assistant", content="", calls=[_call()])], None)
    assert plain.content.startswith("<tool_call>\n")


def test_consecutive_results_are_one_message_of_the_user() -> None:
    """Consecutive results of one turn become one message, since templates require alternation."""
    messages = [_result("20°", 1), _result("21°", 1), USER, _result("22°", 3), _result("23°", 4)]
    assert plain_messages(messages, None) == [
        Message(
            role="user",
            content=(
                "<tool_response>\n20°\n</tool_response>\n<tool_response>\n21°\n</tool_response>"
            ),
            turn=1,
        ),
        USER,
        Message(role="user", content="<tool_response>\n22°\n</tool_response>", turn=3),
        Message(role="user", content="<tool_response>\n23°\n</tool_response>", turn=4),
    ]


def test_messages_without_tools_stay_as_they_are() -> None:
    """Messages are unchanged if there are no tools, calls or results."""
    messages = [Message(role="system", content="Be brief."), USER]
    assert plain_messages(messages, None) == messages


def test_tool_whose_parameters_are_no_schema_is_refused() -> None:
    """A tool is refused by name if its parameters are not a schema."""
    with pytest.raises(InvalidField, match="the tool f "):
        plain_messages([USER], Tools(tools=[Tool(name="f", parameters="5")]))
