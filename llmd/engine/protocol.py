"""What the daemon and a worker say to each other over their socket pair.

A frame is a length (4 bytes, big-endian) and that many bytes of msgpack. The daemon sends one
command a frame, the worker a list of events a frame: all that one step brought.
"""

from __future__ import annotations

import socket
import struct
from typing import Literal

import msgspec

_LENGTH = struct.Struct(">I")

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Far above any real frame: a length beyond it means that the stream is out of step."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a prompt: `turn` counts the old turns from 0, or is -1 for what always stays.

    Only `literal` text, an admin's, may spell special tokens; all else is inserted text.
    """

    text: str
    literal: bool = False
    turn: int = -1


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message for the model's own chat template: `turn` as in `Part`."""

    role: Literal["system", "user", "assistant"]
    content: str
    turn: int = -1


class TextPrompt(msgspec.Struct, frozen=True, tag="text"):
    """A prompt whose text is made already, from a profile's template."""

    parts: list[Part]


class ChatPrompt(msgspec.Struct, frozen=True, tag="chat"):
    """A prompt that the worker renders by the model's own chat template."""

    messages: list[Message]


Prompt = TextPrompt | ChatPrompt


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How a token is chosen. Temperature 0 is greedy; a `top_k` of 0 and a `top_p` of 1 are off."""

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    seed: int = 0


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """First command: which model to load, and how. A thread count of 0: as many as fit.

    `avoid_variants` names CPU code that has died on this processor.
    """

    model_path: str
    library_dir: str
    num_context_tokens: int
    max_sequences: int
    max_batch_tokens: int
    num_threads: int
    num_threads_batch: int
    kv_type: str
    max_state_bytes: int
    avoid_variants: list[str] = []


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag="submit"):
    """Generate. `owner` bounds the reuse of KV; `session` tells which to drop with a session."""

    id: int
    owner: str
    prompt: Prompt
    sampling: Sampling
    max_tokens: int
    stop: list[str] = []
    session: str = ""
    num_turns: int = 0
    max_context_tokens: int | None = None


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Stop generating: answered by a `Done` with the reason ``cancelled``."""

    id: int


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag="forget"):
    """Drop the KV of an owner's session; of all its sessions when `session` is None."""

    owner: str
    session: str | None = None


Command = Start | Submit | Cancel | Forget

FinishReason = Literal["stop", "length", "cancelled"]


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The model serves. `num_context_tokens` is what one sequence can hold."""

    architecture: str
    num_parameters: int
    num_context_tokens: int
    max_sequences: int
    num_threads: int
    num_threads_batch: int
    cpu_variant: str
    has_chat_template: bool


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """Part of the model that is loaded, 0 to 1, by this variant of the CPU code."""

    progress: float
    cpu_variant: str = ""


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed"):
    """The model cannot be loaded, by its own fault or this machine's; the worker ends."""

    message: str
    is_models_fault: bool = True


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """A sequence has its slot; its prompt has these numbers of tokens and of old turns."""

    id: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_turns: int


class Delta(msgspec.Struct, frozen=True, tag="delta"):
    """Further text of an answer."""

    id: int
    text: str


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """An answer is at its end."""

    id: int
    finish_reason: FinishReason
    num_completion_tokens: int
    queue_ms: float
    prefill_ms: float
    decode_ms: float


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """A request that cannot be served. Both numbers are set when the prompt is too long."""

    id: int
    message: str
    num_prompt_tokens: int = 0
    num_context_tokens: int = 0


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat"):
    """Totals since the start and the counts of this moment; `step_s` is 0 between steps.

    The last step took `num_step_tokens` through the model.
    """

    num_running: int
    num_waiting: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_completion_tokens: int
    num_step_tokens: int = 0
    step_s: float


Event = ModelInfo | Loading | LoadFailed | Started | Delta | Done | Refused | Beat

_encoder = msgspec.msgpack.Encoder()
_commands: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_events: msgspec.msgpack.Decoder[list[Event]] = msgspec.msgpack.Decoder(list[Event])


def send_command(sock: socket.socket, command: Command) -> None:
    """Send one command. Raise OSError when the worker is gone."""
    _send(sock, _encoder.encode(command))


def send_events(sock: socket.socket, events: list[Event]) -> None:
    """Send the events of a step. Raise OSError when the daemon is gone."""
    _send(sock, _encoder.encode(events))


def receive_command(sock: socket.socket) -> Command | None:
    """Wait for a command; None when the daemon is gone."""
    frame = _receive(sock)
    return None if frame is None else _commands.decode(frame)


def receive_events(sock: socket.socket) -> list[Event] | None:
    """Wait for the events of a step; None when the worker is gone, or out of its mind."""
    frame = _receive(sock)
    try:
        return None if frame is None else _events.decode(frame)
    except msgspec.DecodeError:
        return None


def _send(sock: socket.socket, payload: bytes) -> None:
    sock.sendall(_LENGTH.pack(len(payload)) + payload)


def _receive(sock: socket.socket) -> bytes | None:
    head = _receive_exactly(sock, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        return None
    return _receive_exactly(sock, length)


def _receive_exactly(sock: socket.socket, num_bytes: int) -> bytes | None:
    """Return that many bytes; None when the other side closed first, even within a frame."""
    chunks: list[bytes] = []
    while num_bytes:
        try:
            chunk = sock.recv(min(num_bytes, 1 << 20))
        except ConnectionError:
            return None
        if not chunk:
            return None
        chunks.append(chunk)
        num_bytes -= len(chunk)
    return b"".join(chunks)
