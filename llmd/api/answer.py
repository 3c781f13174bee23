"""``/answer``: ask, and list one's sessions, as the seed had them."""

from __future__ import annotations

import falcon

from llmd.api import body
from llmd.api.access import caller_of, is_gone, log_of
from llmd.api.reply import send
from llmd.api.stream import EventStream
from llmd.chat.answers import Answers
from llmd.chat.request import AnswerRequest
from llmd.store.sessions import Sessions

MAX_LISTED = 1000


class AnswerResource:
    """Answer a prompt."""

    def __init__(self, answers: Answers, sessions: Sessions) -> None:
        self._answers = answers
        self._sessions = sessions

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer at once as a whole, or as a stream when asked so."""
        request = body.read(req, AnswerRequest)
        request.check()
        log = log_of(req)
        answer = self._answers.start(caller_of(req).id, request, lambda: is_gone(req))
        if request.stream:
            log.is_streaming = True
            resp.content_type = "text/event-stream; charset=utf-8"
            resp.set_header("Cache-Control", "no-store")
            # nginx would hold the tokens back until its buffer is full.
            resp.set_header("X-Accel-Buffering", "no")
            resp.stream = EventStream(answer, log)
            return
        try:
            for _ in answer:
                pass
        finally:
            answer.close()
            log.add_usage(answer.usage)
        send(resp, answer.result)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the caller's sessions as the seed did: id → name."""
        key_id = caller_of(req).id
        names: dict[str, str] = {}
        after: str | None = None
        while page := self._sessions.list(key_id, limit=MAX_LISTED, after=after):
            names |= {session.id: session.name for session in page}
            after = page[-1].id
            if len(page) < MAX_LISTED:
                break
        send(resp, names)
