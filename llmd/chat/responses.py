"""Answer in a conversation that the server keeps: each answer can be named and continued."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from llmd.chat.completions import Conversation, Options, changed, request_for
from llmd.chat.model_names import ModelNames
from llmd.chat.outcome import Outcome
from llmd.chat.run import Plan, Run, Runs
from llmd.engine.engine import Engine
from llmd.engine.protocol import Call, Message, Tools
from llmd.errors import InvalidField
from llmd.store.profiles import Profile, StoredProfile
from llmd.store.responses import Responses as ResponseStore
from llmd.store.responses import StoredResponse
from llmd.store.sessions import NewTurn, Turn, session_id

log = logging.getLogger(__name__)

_messages = msgspec.json.Decoder(list[Message])


class ResponseAsk(Struct, frozen=True, kw_only=True):
    """What to answer. `previous` is the id of a response, `conversation` that of a session.

    `instructions` hold for this answer alone. With `truncate` the oldest turns are left out when
    the context is too short for all.
    """

    input: list[Message]
    instructions: str = ""
    tools: Tools | None = None
    variables: str = "{}"
    previous: str | None = None
    conversation: str | None = None
    store: bool = True
    truncate: bool = False


class Naming(Struct, frozen=True, kw_only=True):
    """The id of a response, when it began, and what makes its body of its outcome."""

    id: str
    created_at: int
    render: Callable[[Outcome], bytes]


class _Place(Struct, frozen=True, kw_only=True):
    """Where an answer belongs: its session, and the turns before it."""

    session: str
    turns: list[Turn]
    branch_of: StoredResponse | None = None


class Responses:
    """Begin answers that can be continued, show them, and take them back."""

    def __init__(
        self,
        runs: Runs,
        models: ModelNames,
        store: ResponseStore,
        engine: Engine,
        *,
        log_prompts: bool = False,
    ) -> None:
        self._runs = runs
        self._models = models
        self._store = store
        self._engine = engine
        self._log_prompts = log_prompts

    def start(
        self,
        owner: str,
        ask: ResponseAsk,
        options: Options,
        naming: Naming,
        is_gone: Callable[[], bool],
    ) -> Run:
        """Return a run that generates; all that can be refused is refused here.

        Raise as `Completions.start` does, and `UnknownResponse`.
        """
        if ask.previous is not None and ask.conversation is not None:
            raise InvalidField(
                "previous_response_id and conversation exclude each other",
                param="previous_response_id",
            )
        # Before anything waits: who named what is not there shall hear it at once.
        stored = self._models.resolve(options.model)
        profile = changed(stored.profile, options)
        session = self._session(owner, ask)
        if self._log_prompts:
            log.info("prompt: %s", ask.input[-1].content)
        return self._runs.start(
            owner,
            session,
            is_gone,
            lambda: self._plan(owner, ask, options, naming, stored, profile),
        )

    def get(self, owner: str, response_id: str) -> bytes:
        """Return the body of a response, or raise `UnknownResponse`."""
        return self._store.get(owner, response_id).body.encode()

    def delete(self, owner: str, response_id: str) -> None:
        """Delete a response, or raise `UnknownResponse`."""
        session = self._store.delete(owner, response_id)
        self._engine.forget(owner, session)

    def _session(self, owner: str, ask: ResponseAsk) -> str | None:
        """Return the session whose requests run one after another; None for a new one."""
        if ask.previous is not None:
            return self._store.get(owner, ask.previous).session_id
        return None if ask.conversation is None else session_id(ask.conversation)

    def _place(self, owner: str, ask: ResponseAsk, naming: Naming) -> _Place:
        if ask.previous is not None:
            found = self._store.get(owner, ask.previous)
            turns = self._store.history(owner, found.session_id, found.seq)
            if found.is_last:
                return _Place(session=found.session_id, turns=turns)
            # Another answer follows it already: this one begins a branch.
            return _Place(session=naming.id, turns=turns, branch_of=found)
        if ask.conversation is not None:
            session = session_id(ask.conversation)
            return _Place(session=session, turns=self._store.history(owner, session))
        return _Place(session=naming.id, turns=[])

    def _plan(
        self,
        owner: str,
        ask: ResponseAsk,
        options: Options,
        naming: Naming,
        stored: StoredProfile,
        profile: Profile,
    ) -> Plan:
        place = self._place(owner, ask, naming)
        messages = [Message(role="system", content=ask.instructions)] if ask.instructions else []
        for index, turn in enumerate(place.turns):
            messages += _said(turn, index if ask.truncate else -1)
        conversation = Conversation(
            messages=_with_names([*messages, *ask.input]), tools=ask.tools, variables=ask.variables
        )
        request = request_for(owner, place.session, conversation, profile, options)
        if ask.truncate:
            request = msgspec.structs.replace(request, num_turns=len(place.turns))

        def keep(outcome: Outcome) -> None:
            if self._log_prompts:
                log.info("answer: %s", outcome.text)
            if not ask.store:
                return
            turn = NewTurn(
                user="\n".join(message.content for message in ask.input),
                assistant=outcome.text,
                profile=stored.name,
                profile_revision=stored.revision,
                model=outcome.model,
                num_prompt_tokens=outcome.usage.prompt_tokens,
                num_cached_tokens=outcome.usage.prompt_tokens_details.cached_tokens,
                num_completion_tokens=outcome.usage.completion_tokens,
                finish_reason=outcome.finish_reason,
                seed=request.sampling.seed,
                created_at=int(time.time()),
                messages=_messages_of(ask.input, outcome),
            )
            self._store.append(
                owner,
                place.session,
                turn,
                response_id=naming.id,
                body=naming.render(outcome).decode(),
                # A session that was deleted meanwhile must not come back.
                must_exist=bool(place.turns),
                branch_of=place.branch_of,
            )

        return Plan(request, keep, id=naming.id, created_at=naming.created_at)


def _said(turn: Turn, number: int) -> list[Message]:
    """Return the messages of a stored turn."""
    if turn.messages is None:
        said = [
            Message(role="user", content=turn.user),
            Message(role="assistant", content=turn.assistant),
        ]
    else:
        said = _messages.decode(turn.messages)
    return [msgspec.structs.replace(message, turn=number) for message in said]


def _with_names(messages: list[Message]) -> list[Message]:
    """Tell of each tool's result which tool it is of: its call may be in an earlier response."""
    names = {call.id: call.name for message in messages for call in message.calls}
    return [
        msgspec.structs.replace(message, name=message.name or names.get(message.call_id, ""))
        if message.role == "tool"
        else message
        for message in messages
    ]


def _messages_of(given: list[Message], outcome: Outcome) -> str | None:
    """Return what was said as JSON, where a question and an answer do not tell it all."""
    if (
        not outcome.calls
        and len(given) == 1
        and given[0] == Message(role="user", content=given[0].content)
    ):
        return None
    calls = [Call(name=call.name, arguments=call.arguments, id=call.id) for call in outcome.calls]
    answer = Message(role="assistant", content=outcome.text, calls=calls)
    return msgspec.json.encode([*given, answer]).decode()
