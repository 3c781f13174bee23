"""``/answer``: answer a prompt, and list the caller's sessions, as the seed did."""

from __future__ import annotations

import falcon

from llmd.api import body
from llmd.api.access import Access, caller_of, is_gone
from llmd.api.reply import send
from llmd.api.route import Operation
from llmd.api.stream import event, send_stream, take_whole
from llmd.chat.answer_request import AnswerRequest, AnswerResult
from llmd.chat.answers import Answer, Answers
from llmd.errors import Conflict, PromptTooLong, StoreFull, UnknownProfile, UnknownSession
from llmd.store.sessions import Sessions

MAX_LISTED = 1000
"""The number of sessions that one query of the store reads."""

ANSWER = {
    "POST": Operation(
        summary="Answer a prompt",
        description=(
            "Requests of one session run one after another. "
            "The answer is sent once its turn is on disk."
        ),
        access=Access.USER,
        body=AnswerRequest,
        reply=AnswerResult,
        stream=(
            'Events `token` with `{"text": "…"}`, then one `done` with the same body as a whole '
            "answer, or one `error` with an error body. Lines that begin with `:` keep the "
            "connection open."
        ),
        errors=(PromptTooLong, UnknownProfile, UnknownSession, Conflict, StoreFull),
    ),
    "GET": Operation(
        summary="List the caller's sessions: a map from id to name",
        description="`GET /sessions` has more about each.",
        access=Access.USER,
        reply=dict[str, str],
    ),
}


class AnswerForm:
    """Write an answer as the events ``token``, then ``done`` or ``error``."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def begin(self) -> bytes:
        """Return no bytes: there is no event before the first token."""
        return b""

    def piece(self, piece: str) -> bytes:
        """Return the event of a piece of text."""
        return event("token", {"text": piece})

    def end(self) -> bytes:
        """Return the event of the whole answer."""
        return event("done", self._answer.result)

    def error(self, body: dict[str, object]) -> bytes:
        """Return the event of an error."""
        return event("error", body)


class AnswerResource:
    """Answer a prompt."""

    def __init__(self, answers: Answers, sessions: Sessions) -> None:
        self._answers = answers
        self._sessions = sessions

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with one body, or with a stream if the request asks for one."""
        request = body.read(req, AnswerRequest)
        request.check()
        answer = self._answers.start(caller_of(req).id, request, lambda: is_gone(req))
        if request.stream:
            send_stream(req, resp, answer, AnswerForm(answer))
        else:
            take_whole(req, answer)
            send(resp, answer.result)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Return the name of each of the caller's sessions by its id, as the seed did."""
        key_id = caller_of(req).id
        names: dict[str, str] = {}
        after: str | None = None
        while page := self._sessions.list(key_id, limit=MAX_LISTED, after=after):
            names |= {session.id: session.name for session in page}
            after = page[-1].id
            if len(page) < MAX_LISTED:
                break
        send(resp, names)
