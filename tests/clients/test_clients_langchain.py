"""LangChain's chat model and embeddings, set to llmd by the base URL only."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.clients.sdk import FRANCE, MODEL, STORY, base_url
from tests.clients.tools import LAMP, QUESTION, SCHEMAS, TOOLS, WEATHER, check_arguments
from tests.e2e.daemon import Daemon

pytestmark = pytest.mark.e2e


class Visit(BaseModel):
    """A visit to a city."""

    city: Literal["Paris", "Rome"]
    by_train: bool


def _connect(daemon: Daemon, **options: Any) -> ChatOpenAI:
    """Return a chat model, made as LangChain's documentation does for other servers."""
    return ChatOpenAI(
        base_url=base_url(daemon),
        api_key=SecretStr(daemon.key),
        model=MODEL,
        max_retries=0,
        **options,
    )


@pytest.fixture(scope="module")
def chat(daemon: Daemon) -> ChatOpenAI:
    """Provide a chat model."""
    return _connect(daemon)


def test_a_question_is_answered(chat: ChatOpenAI) -> None:
    """An answer has its usage and finish reason where LangChain's users expect them."""
    answer = chat.invoke(FRANCE)
    assert isinstance(answer, AIMessage)
    assert answer.text
    assert answer.response_metadata["finish_reason"] in {"stop", "length"}
    assert answer.response_metadata["model_name"] == MODEL
    usage = answer.usage_metadata
    assert usage
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0


def test_messages_of_all_kinds_are_accepted(chat: ChatOpenAI) -> None:
    """Messages of the system, the user, the model and a tool are accepted."""
    call = {"name": WEATHER, "args": {"city": "Paris", "days": 1}, "id": "call_1"}
    answer = chat.invoke(
        [
            SystemMessage("Be brief."),
            HumanMessage(QUESTION),
            AIMessage("", tool_calls=[call]),
            ToolMessage("rain", tool_call_id="call_1"),
        ]
    )
    assert answer.text


def test_a_stream_is_the_answer_in_pieces(chat: ChatOpenAI) -> None:
    """The chunks of a stream add up to the whole message."""
    whole = chat.invoke(STORY)
    added: AIMessageChunk | None = None
    count = 0
    for chunk in chat.stream(STORY, stream_usage=True):
        assert isinstance(chunk, AIMessageChunk)
        added = chunk if added is None else added + chunk
        count += 1
    assert added is not None
    assert count > 3
    assert added.text == whole.text
    assert added.usage_metadata and whole.usage_metadata
    assert added.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]


def test_a_stream_has_no_usage_without_a_request(chat: ChatOpenAI) -> None:
    """A stream has no usage unless LangChain requests it."""
    assert all(chunk.usage_metadata is None for chunk in chat.stream(FRANCE, stream_usage=False))


def test_a_batch_is_answered_in_its_order(chat: ChatOpenAI) -> None:
    """Questions that are sent at the same time get their own answers."""
    questions = [FRANCE, STORY, QUESTION]
    together = chat.batch([*questions])
    for question, answer in zip(questions, together, strict=True):
        alone = chat.invoke(question)
        assert answer.usage_metadata and alone.usage_metadata
        assert answer.usage_metadata["input_tokens"] == alone.usage_metadata["input_tokens"]
        assert answer.text


@pytest.mark.parametrize("choice", [LAMP, "any"])
def test_tools_can_be_bound(chat: ChatOpenAI, choice: str) -> None:
    """LangChain parses the tool calls of a whole answer and of a stream."""
    bound = chat.bind_tools(
        [dict(tool) for tool in TOOLS], tool_choice=choice, parallel_tool_calls=False, max_tokens=64
    )
    answer = bound.invoke(QUESTION)
    (call,) = answer.tool_calls
    assert not answer.invalid_tool_calls
    assert call["name"] in SCHEMAS
    assert choice in {call["name"], "any"}
    streamed: AIMessageChunk | None = None
    for chunk in bound.stream(QUESTION):
        assert isinstance(chunk, AIMessageChunk)
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed is not None
    (piece,) = streamed.tool_call_chunks
    assert check_arguments(str(piece["name"]), str(piece["args"])) == call["args"]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_an_answer_can_fill_in_a_class(
    daemon: Daemon, method: Literal["json_schema", "function_calling"]
) -> None:
    """A class is filled in by a response format or by a required tool call."""
    structured = _connect(daemon, max_tokens=64).with_structured_output(Visit, method=method)
    assert isinstance(structured.invoke(QUESTION), Visit)


def test_the_responses_api_can_be_used(daemon: Daemon) -> None:
    """LangChain can use the Responses API, and continues the last response by its id."""
    chat = _connect(daemon, use_responses_api=True, use_previous_response_id=True)
    first = chat.invoke(FRANCE)
    assert first.text
    assert first.response_metadata["id"].startswith("resp_")
    second = chat.invoke([HumanMessage(FRANCE), first, HumanMessage("And of Italy?")])
    assert second.text
    assert first.usage_metadata and second.usage_metadata
    assert second.usage_metadata["input_tokens"] > first.usage_metadata["input_tokens"]
    assert "".join(chunk.text for chunk in chat.stream(FRANCE)) == first.text


def test_texts_are_embedded(daemon: Daemon) -> None:
    """One text or many are embedded, with vectors of length 1."""
    embeddings = OpenAIEmbeddings(
        base_url=base_url(daemon),
        api_key=SecretStr(daemon.key),
        model=MODEL,
        max_retries=0,
        # LangChain would fetch a tokenizer from the network to count tokens itself.
        check_embedding_ctx_length=False,
    )
    many = embeddings.embed_documents([FRANCE, STORY])
    one = embeddings.embed_query(FRANCE)
    assert [len(vector) for vector in many] == [len(one)] * 2
    assert math.isclose(sum(number * number for number in one), 1, rel_tol=1e-3)
    assert one == pytest.approx(many[0], abs=2e-2)
