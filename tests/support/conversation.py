"""A client of responses, without HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmd.chat.completions import Options
from llmd.chat.outcome import Outcome
from llmd.chat.responses import Naming, ResponseAsk
from llmd.chat.run import Run
from llmd.engine.protocol import ChatPrompt, Message
from tests.support.answers import is_free, never
from tests.support.fake_engine import says
from tests.support.service import Service


class ResponsesClient:
    """A client that gets `re: ` and its own text as the answer to each question."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.engine = service.engine
        self.owner = service.user_key.id

    def start(
        self,
        response: str,
        text: str | list[Message] = "hi",
        *,
        is_gone: Callable[[], bool] = never,
        model: str = "default",
        owner: str = "",
        **fields: Any,
    ) -> Run:
        """Begin a response with this ID."""
        given = [user(text)] if isinstance(text, str) else text
        naming = Naming(id=response, created_at=5, render=_body)
        ask = ResponseAsk(input=given, **fields)
        options = Options(model=model, changes={"seed": 1})
        return self.service.responses.start(owner or self.owner, ask, options, naming, is_gone)

    def say(self, response: str, text: str | list[Message] = "hi", **fields: Any) -> list[Message]:
        """Complete a response. Return the messages of its prompt."""
        shown = text if isinstance(text, str) else "that"
        self.engine.script = says(f"re: {shown}")
        return self.finish(self.start(response, text, **fields))

    def finish(self, run: Run) -> list[Message]:
        for _ in run:
            pass
        run.close()
        assert is_free(self.service)
        return self.prompt()

    def prompt(self) -> list[Message]:
        """Return the messages of the last prompt of the engine."""
        prompt = self.engine.requests[-1].prompt
        assert isinstance(prompt, ChatPrompt)
        return prompt.messages

    def get(self, response: str) -> str:
        return self.service.responses.get(self.owner, response).decode()

    def sessions(self) -> dict[str, list[str]]:
        """Return the questions of each session."""
        sessions = self.service.sessions
        return {
            session.id: [turn.user for turn in sessions.turns(self.owner, session.id)]
            for session in sessions.list(self.owner)
        }


def _body(outcome: Outcome) -> bytes:
    return f"{outcome.finish_reason}: {outcome.text}".encode()


def user(text: str, turn: int = -1) -> Message:
    """Return the message of a question."""
    return Message(role="user", content=text, turn=turn)


def answer(text: str, turn: int = -1) -> Message:
    """Return the message of the answer to a question."""
    return Message(role="assistant", content=f"re: {text}", turn=turn)
