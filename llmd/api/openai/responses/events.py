"""The events of a streamed response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from llmd.api.openai.reply_parts import Logprob, logprobs_of
from llmd.api.openai.responses.reply import OutputItem, OutputText, ReasoningText, ResponseReply
from llmd.api.stream import event
from llmd.chat.outcome import CallPiece, Outcome, Piece
from llmd.engine.protocol import Delta


class _OpenItem:
    """An item that is being streamed."""

    def __init__(self, index: int, item: OutputItem) -> None:
        self.index = index
        self.id = item.id
        self.item = item
        self.pieces: list[str] = []
        self.logprobs: list[Logprob] = []

    @property
    def text(self) -> str:
        """The text or the arguments so far."""
        return "".join(self.pieces)


class ResponseEvents:
    """Writes a response as typed events, each with a sequence number."""

    def __init__(self, reply: ResponseReply, outcome: Callable[[], Outcome]) -> None:
        """Take the response at the start, and a function that returns its outcome at the end."""
        self._reply = reply
        self._outcome = outcome
        self._number = -1
        self._num_items = 0
        self._open: _OpenItem | None = None

    def begin(self) -> bytes:
        """Return the events at the start."""
        return self._event("response.created", response=self._reply) + self._event(
            "response.in_progress", response=self._reply
        )

    def piece(self, piece: Piece) -> bytes:
        """Return the events of a piece, after those that open its item if it is a new one."""
        if isinstance(piece, CallPiece):
            return self._call_piece(piece)
        logprobs = logprobs_of(piece.logprobs).content if isinstance(piece, Delta) else []
        if not piece.text:
            # Log probabilities of tokens without text are sent when the item is closed.
            if self._open is not None:
                self._open.logprobs += logprobs
            return b""
        is_text = isinstance(piece, Delta)
        kind = "message" if is_text else "reasoning"
        events = b""
        if self._open is None or self._open.item.type != kind:
            events = self._close_item() + self._open_text(is_text=is_text)
        current = self._open
        assert current is not None, "no item is open"  # noqa: S101
        current.pieces.append(piece.text)
        name = "response.output_text.delta" if is_text else "response.reasoning_text.delta"
        current.logprobs += logprobs
        return events + self._item_event(
            name, content_index=0, delta=piece.text, **({"logprobs": logprobs} if is_text else {})
        )

    def end(self) -> bytes:
        """Return the events at the end."""
        ended = self._reply.ended(self._outcome())
        name = "response.completed" if ended.status == "completed" else "response.incomplete"
        # If the answer was cut off, the open item is the incomplete one.
        status = "completed" if ended.status == "completed" else "incomplete"
        events = self._close_item(status)
        if not self._num_items:
            events += self._open_text(is_text=True) + self._close_item(status)
        return events + self._event(name, response=ended)

    def error(self, body: dict[str, Any]) -> bytes:
        """Return the event of an error."""
        error = body["error"]
        return self._event(
            "error", code=error["code"], message=error["message"], param=error["param"]
        )

    def _open_text(self, *, is_text: bool) -> bytes:
        """Open a message, or a reasoning item."""
        item = (
            OutputItem(
                id=f"msg_{self._reply.id}",
                type="message",
                role="assistant",
                status="in_progress",
                content=[],
            )
            if is_text
            else OutputItem(id=f"rs_{self._reply.id}", type="reasoning", summary=[], content=[])
        )
        part = OutputText(text="") if is_text else ReasoningText(text="")
        return self._add_item(item) + self._item_event(
            "response.content_part.added", content_index=0, part=part
        )

    def _call_piece(self, piece: CallPiece) -> bytes:
        events = b""
        if piece.name:
            item = OutputItem(
                id=f"fc_{self._reply.id}_{piece.index}",
                type="function_call",
                status="in_progress",
                call_id=piece.id,
                name=piece.name,
                arguments="",
            )
            events = self._close_item() + self._add_item(item)
        if piece.arguments and self._open is not None:
            self._open.pieces.append(piece.arguments)
            events += self._item_event(
                "response.function_call_arguments.delta", delta=piece.arguments
            )
        return events

    def _add_item(self, item: OutputItem) -> bytes:
        self._open = _OpenItem(self._num_items, item)
        self._num_items += 1
        return self._event("response.output_item.added", output_index=self._open.index, item=item)

    def _close_item(self, status: str = "completed") -> bytes:
        """Close the open item, if any."""
        current = self._open
        if current is None:
            return b""
        text, item = current.text, current.item
        if item.type == "function_call":
            events = self._item_event(
                "response.function_call_arguments.done", name=item.name, arguments=text
            )
            done = msgspec.structs.replace(item, status=status, arguments=text)
        else:
            is_text = item.type == "message"
            logprobs = current.logprobs
            part = OutputText(text=text, logprobs=logprobs) if is_text else ReasoningText(text=text)
            name = "response.output_text.done" if is_text else "response.reasoning_text.done"
            events = self._item_event(
                name, content_index=0, text=text, **({"logprobs": logprobs} if is_text else {})
            ) + self._item_event("response.content_part.done", content_index=0, part=part)
            done = msgspec.structs.replace(item, status=status if is_text else "", content=[part])
        self._open = None
        return events + self._event(
            "response.output_item.done", output_index=current.index, item=done
        )

    def _item_event(self, kind: str, **fields: Any) -> bytes:
        current = self._open
        assert current is not None, "no item is open"  # noqa: S101
        return self._event(kind, item_id=current.id, output_index=current.index, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._number += 1
        return event(kind, {"type": kind, "sequence_number": self._number, **fields})
