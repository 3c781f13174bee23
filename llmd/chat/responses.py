"""Answer in conversations that the server stores. Each response has an ID to continue from."""

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
from llmd.codecs import Codec
from llmd.engine.engine import Engine
from llmd.engine.protocol import Call, Message, Tools
from llmd.errors import InvalidField
from llmd.store.profiles import Profile, StoredProfile
from llmd.store.responses import Responses as ResponseStore
from llmd.store.responses import StoredResponse
from llmd.store.sessions import NewTurn, Turn, session_id

log = logging.getLogger(__name__)

_messages: Codec[list[Message]] = Codec(list[Message])


class ResponseAsk(Struct, frozen=True, kw_only=True):
    """The input of a response.

    `previous` is the ID of a response to continue from, `conversation` the ID of a session. The
    `instructions` are for this answer alone. With `truncate`, the oldest turns are left out if
    the context is too small for all.
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
    """The ID of a response, the time of its creation, and a function that renders its body."""

    id: str
    created_at: int
    render: Callable[[Outcome], bytes]


class _Position(Struct, frozen=True, kw_only=True):
    """The position of an answer: its session and the turns before it.

    `branch_of` is the response that a new session continues, if there is one.
    """

    session: str
    turns: list[Turn]
    branch_of: StoredResponse | None = None


class Responses:
    """Begin, show and delete responses, which are answers that can be continued."""

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
        """Begin a generation, and return its run once the engine has accepted the prompt.

        Raise the errors of `Completions.start`, and `UnknownResponse`.
        """
        if ask.previous is not None and ask.conversation is not None:
            raise InvalidField(
                "previous_response_id and conversation cannot be used together",
                param="previous_response_id",
            )
        # Before the request is queued: an unknown name is reported at once.
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
        """Return the body of a response. Raise `UnknownResponse`."""
        return self._store.get(owner, response_id).body.encode()

    def delete(self, owner: str, response_id: str) -> None:
        """Delete a response. Raise `UnknownResponse`."""
        session = self._store.delete(owner, response_id)
        self._engine.forget(owner, session)

    def _session(self, owner: str, ask: ResponseAsk) -> str | None:
        """Return the session that the request must queue for, or None for a new session."""
        if ask.previous is not None:
            return self._store.get(owner, ask.previous).session_id
        return None if ask.conversation is None else session_id(ask.conversation)

    def _position(self, owner: str, ask: ResponseAsk, naming: Naming) -> _Position:
        if ask.previous is not None:
            found = self._store.get(owner, ask.previous)
            turns = self._store.history(owner, found.session_id, found.seq)
            if found.is_last:
                return _Position(session=found.session_id, turns=turns)
            # Another answer follows it already, so this one begins a branch.
            return _Position(session=naming.id, turns=turns, branch_of=found)
        if ask.conversation is not None:
            session = session_id(ask.conversation)
            return _Position(session=session, turns=self._store.history(owner, session))
        return _Position(session=naming.id, turns=[])

    def _plan(
        self,
        owner: str,
        ask: ResponseAsk,
        options: Options,
        naming: Naming,
        stored: StoredProfile,
        profile: Profile,
    ) -> Plan:
        position = self._position(owner, ask, naming)
        messages = [Message(role="system", content=ask.instructions)] if ask.instructions else []
        for index, turn in enumerate(position.turns):
            messages += _messages_of(turn, index if ask.truncate else -1)
        conversation = Conversation(
            messages=_with_names([*messages, *ask.input]), tools=ask.tools, variables=ask.variables
        )
        request = request_for(owner, position.session, conversation, profile, options)
        if ask.truncate:
            request = msgspec.structs.replace(request, num_turns=len(position.turns))

        def keep(outcome: Outcome) -> None:
            if self._log_prompts:
                log.info("answer: %s", outcome.text)
            if not ask.store:
                return
            turn = NewTurn(
                user="\n".join(message.content for message in ask.input),
                assistant=outcome.text,
                reasoning=outcome.reasoning,
                profile=stored.name,
                profile_revision=stored.revision,
                model=outcome.model,
                num_prompt_tokens=outcome.usage.prompt_tokens,
                num_cached_tokens=outcome.usage.prompt_tokens_details.cached_tokens,
                num_completion_tokens=outcome.usage.completion_tokens,
                finish_reason=outcome.finish_reason,
                seed=request.sampling.seed,
                created_at=int(time.time()),
                messages=_stored_messages(ask.input, outcome),
            )
            self._store.append(
                owner,
                position.session,
                turn,
                response_id=naming.id,
                body=naming.render(outcome).decode(),
                # A session that was deleted meanwhile must not be created again.
                must_exist=bool(position.turns),
                branch_of=position.branch_of,
            )

        return Plan(request, keep, id=naming.id, created_at=naming.created_at)


def _messages_of(turn: Turn, number: int) -> list[Message]:
    """Return the messages of a stored turn, each with `number` as its `turn`."""
    if turn.messages is None:
        messages = [
            Message(role="user", content=turn.user),
            Message(role="assistant", content=turn.assistant, reasoning=turn.reasoning),
        ]
    else:
        messages = _messages.decode_json(turn.messages)
    return [msgspec.structs.replace(message, turn=number) for message in messages]


def _with_names(messages: list[Message]) -> list[Message]:
    """Add the name of the tool to each result, since its call may be in an earlier response."""
    names = {call.id: call.name for message in messages for call in message.calls}
    return [
        msgspec.structs.replace(message, name=message.name or names.get(message.call_id, ""))
        if message.role == "tool"
        else message
        for message in messages
    ]


def _stored_messages(given: list[Message], outcome: Outcome) -> str | None:
    """Return the messages of a turn as JSON, or None for a plain question and answer."""
    if (
        not outcome.calls
        and len(given) == 1
        and given[0] == Message(role="user", content=given[0].content)
    ):
        return None
    calls = [Call(name=call.name, arguments=call.arguments, id=call.id) for call in outcome.calls]
    answer = Message(
        role="assistant", content=outcome.text, calls=calls, reasoning=outcome.reasoning
    )
    return msgspec.json.encode([*given, answer]).decode()
