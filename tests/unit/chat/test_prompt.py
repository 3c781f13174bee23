"""Prompts from a profile, old turns and the user's text."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.chat.prompt import MAX_STOP_CHARS, build, default_stop, num_kept
from llmd.engine.protocol import ChatPrompt, Message, Part, TextPrompt
from llmd.store.profiles import Profile

SEED = "You help.\n\nCurrent conversation:\n{chat_history}\nPROMPT: {input}\nANSWER:"


@dataclass(frozen=True)
class Turn:
    user: str
    assistant: str
    reasoning: str = ""


def parts_of(template: str, turns: list[Turn], text: str, **fields: str) -> list[Part]:
    """Return the parts of a prompt that is made with a template."""
    made = build(Profile(template=template, **fields), turns, text)  # type: ignore[arg-type]
    assert isinstance(made, TextPrompt)
    return made.parts


def text_of(template: str, turns: list[Turn], text: str, **fields: str) -> str:
    """Return the text of a prompt that is made with a template."""
    return "".join(part.text for part in parts_of(template, turns, text, **fields))


def test_the_seeds_template_is_filled_as_the_seed_filled_it() -> None:
    """The history has two lines for each turn."""
    turns = [Turn("hi", "hello"), Turn("and?", "so")]
    assert text_of(SEED, turns, "why?") == (
        "You help.\n\nCurrent conversation:\nHuman: hi\nAI: hello\nHuman: and?\nAI: so\n"
        "PROMPT: why?\nANSWER:"
    )


def test_a_first_prompt_has_an_empty_history() -> None:
    """Without turns, the placeholder of the history is replaced by nothing."""
    assert text_of("<{chat_history}>{input}", [], "x") == "<>x"


def test_placeholders_typed_by_a_user_stay_text() -> None:
    """Placeholders in the prompt, in old prompts and in old answers are not replaced."""
    turns = [Turn("{input}", "{chat_history}"), Turn("{chat_history}", "{input}")]
    assert text_of("{chat_history}|{input}", turns, "{chat_history}{input}") == (
        "Human: {input}\nAI: {chat_history}\nHuman: {chat_history}\nAI: {input}"
        "|{chat_history}{input}"
    )


@pytest.mark.parametrize(
    "literal", ["{", "}", "{{input}", "{name}", "{input!r}", "{0}", "%s", "{input:>999999999}"]
)
def test_all_other_braces_are_literal(literal: str) -> None:
    """Other braces in a template have no meaning."""
    if "{input}" in literal:
        assert text_of(literal, [], "x") == "{x"
    else:
        assert text_of(literal + "{input}", [], "x") == literal + "x"


def test_labels_come_from_the_profile() -> None:
    """The labels of the history come from the profile."""
    made = text_of("{chat_history}/{input}", [Turn("a", "b")], "x", human_label="Q", ai_label="A")
    assert made == "Q: a\nA: b/x"


def test_only_the_templates_own_text_is_literal() -> None:
    """Only the text of the template is literal, and the part of a turn has its number."""
    parts = parts_of("S{chat_history}P{input}E", [Turn("a", "b"), Turn("c", "d")], "<s>")
    assert [(part.text, part.literal, part.turn) for part in parts] == [
        ("S", True, -1),
        ("Human: a\nAI: b\n", False, 0),
        ("Human: c\nAI: d", False, 1),
        ("P", True, -1),
        ("<s>", False, -1),
        ("E", True, -1),
    ]


def test_without_a_template_the_turns_are_messages_after_the_system_text() -> None:
    """Without a template, the prompt is a list of messages with the numbers of their turns."""
    made = build(Profile(system="Be kind."), [Turn("a", "b")], "c")
    assert made == ChatPrompt(
        [
            Message(role="system", content="Be kind."),
            Message(role="user", content="a", turn=0),
            Message(role="assistant", content="b", turn=0),
            Message(role="user", content="c"),
        ]
    )


def test_an_empty_system_text_makes_no_message() -> None:
    """An empty system text adds no message, since some chat templates refuse one."""
    assert build(Profile(), [], "c") == ChatPrompt([Message(role="user", content="c")])


@pytest.mark.parametrize(
    ("template", "stops"),
    [
        (SEED, ["PROMPT:", "Human:"]),
        ("{chat_history}{input}", ["Human:"]),
        ("{chat_history}\nHuman: {input}\nAI:", ["Human:"]),
        ("Q:\n{input}", ["Human:"]),
        ("a b\n  User > {input}", ["User >", "Human:"]),
        ("{input}\nPROMPT:", ["Human:"]),
        ("- {input}", ["Human:"]),
        ('say "{input}"', ["Human:"]),
        ("a {input}", ["Human:"]),
    ],
)
def test_an_answer_by_a_template_stops_where_the_user_would_speak(
    template: str, stops: list[str]
) -> None:
    """The stop strings are the label before the input and the label of the user."""
    assert default_stop(Profile(template=template)) == stops


def test_a_long_label_is_cut_to_what_a_stop_may_hold() -> None:
    """A long label is shortened to its end."""
    stops = default_stop(Profile(template="x" * 200 + "y:{input}"))
    assert stops[0] == ("x" * 200 + "y:")[-MAX_STOP_CHARS:]


def test_the_models_own_template_needs_no_stop_strings() -> None:
    """Without a template there are no stop strings, since the model has an end token."""
    assert default_stop(Profile()) == []


@given(st.integers(0, 10_000), st.integers(0, 1000))
def test_never_more_turns_are_kept_than_the_window_or_the_session_has(
    num_turns: int, max_turns: int
) -> None:
    """The number of kept turns never exceeds a limit, and a short session is kept whole."""
    kept = num_kept(num_turns, max_turns)
    assert 0 <= kept <= min(num_turns, max_turns)
    assert num_turns > max_turns or kept == num_turns


@given(st.integers(0, 10_000), st.integers(1, 1000))
def test_at_least_half_of_the_window_stays_filled(num_turns: int, max_turns: int) -> None:
    """Leaving out blocks costs less than one block more than necessary."""
    kept = num_kept(num_turns, max_turns)
    assert kept >= min(num_turns, max_turns - (max_turns + 1) // 2 + 1)


@pytest.mark.parametrize(("max_turns", "block"), [(1, 1), (2, 1), (4, 2), (5, 3), (10, 5)])
def test_the_oldest_turn_kept_stays_the_same_for_a_block_of_turns(
    max_turns: int, block: int
) -> None:
    """The first turn in the prompt changes only after every `block` turns."""
    firsts = [num_turns - num_kept(num_turns, max_turns) for num_turns in range(max_turns + 40)]
    beyond = firsts[max_turns + 1 : max_turns + 1 + block * 4]
    assert firsts[: max_turns + 1] == [0] * (max_turns + 1)
    assert beyond == [block * (1 + index // block) for index in range(block * 4)]


def test_a_window_of_five_drops_three_turns_at_a_time() -> None:
    """With at most five turns, three turns are left out at a time."""
    assert [num_kept(num, 5) for num in range(11)] == [0, 1, 2, 3, 4, 5, 3, 4, 5, 3, 4]


def test_a_window_of_none_keeps_none() -> None:
    """With `history_turns` 0, the prompt has no old turns."""
    assert [num_kept(num, 0) for num in (0, 1, 7)] == [0, 0, 0]


_piece = st.sampled_from(
    ["{", "}", "{{", "{inp", "ut}", "{chat_history}", "{input}", "Human:", "\n", "é", "x"]
)
_texts = st.lists(_piece, max_size=8).map("".join)
_turns = st.lists(st.builds(Turn, _texts, _texts), max_size=3)


def reference(template: str, turns: list[Turn], text: str) -> str:
    """Fill a template in a different way, as a reference."""
    history = "\n".join(f"Human: {turn.user}\nAI: {turn.assistant}" for turn in turns)
    before, _, after = template.partition("{input}")
    halves = [history.join(half.split("{chat_history}")) for half in (before, after)]
    return text.join(halves)


@settings(max_examples=150)
@given(_texts, _turns, _texts)
def test_every_template_renders_as_the_reference_does(
    template: str, turns: list[Turn], text: str
) -> None:
    """A template is filled as the reference fills it, even if texts contain placeholders."""
    if template.count("{input}") != 1 or template.count("{chat_history}") > 1:
        template = template.replace("{chat_history}", "").replace("{input}", "") + "{input}"
        if template.count("{input}") != 1:
            return
    parts = parts_of(template, turns, text)
    assert "".join(part.text for part in parts) == reference(template, turns, text)
    own = "".join(part.text for part in parts if part.literal)
    assert own == template.replace("{input}", "\0").replace("{chat_history}", "\0").replace(
        "\0", ""
    )
