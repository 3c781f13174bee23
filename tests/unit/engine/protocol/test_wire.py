from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.engine.protocol import (
    MAX_FRAME_BYTES,
    Beat,
    Cancel,
    ChatPrompt,
    Command,
    Delta,
    Done,
    Event,
    Forget,
    LoadFailed,
    Loading,
    Message,
    ModelInfo,
    Part,
    Refused,
    Sampling,
    Start,
    Started,
    Submit,
    TextPrompt,
    receive_command,
    receive_events,
    send_command,
    send_events,
)

COMMANDS: list[Command] = [
    Start(
        model_path="/m.gguf",
        library_dir="/lib",
        num_context_tokens=512,
        max_sequences=2,
        max_batch_tokens=64,
        num_threads=0,
        num_threads_batch=0,
        kv_type="f16",
        max_state_bytes=1 << 40,
    ),
    Submit(
        id=1,
        owner="ann",
        prompt=TextPrompt([Part(text="é\0", literal=True), Part(text="x", turn=3)]),
        sampling=Sampling(temperature=0.0, seed=2**32 - 1),
        max_tokens=5,
        stop=["\n"],
    ),
    Submit(
        id=2,
        owner="bob",
        prompt=ChatPrompt([Message(role="user", content="\U0001f600", turn=1)]),
        sampling=Sampling(),
        max_tokens=5,
        session="s",
        num_turns=2,
        max_context_tokens=99,
    ),
    Cancel(2),
    Forget(owner="ann"),
    Forget(owner="ann", session="s"),
]

EVENTS: list[Event] = [
    ModelInfo(
        architecture="llama",
        num_parameters=1,
        num_context_tokens=2,
        max_sequences=3,
        num_threads=4,
        num_threads_batch=5,
        cpu_variant="haswell",
        has_chat_template=True,
    ),
    Loading(0.5),
    LoadFailed("no"),
    Started(id=1, num_prompt_tokens=2, num_cached_tokens=3, num_turns=4),
    Delta(1, "text"),
    Done(
        id=1,
        finish_reason="length",
        num_completion_tokens=2,
        queue_ms=0.5,
        prefill_ms=1.5,
        decode_ms=2.5,
    ),
    Refused(id=1, message="no", num_prompt_tokens=2, num_context_tokens=1),
    Beat(
        num_running=1,
        num_waiting=2,
        num_prompt_tokens=3,
        num_cached_tokens=4,
        num_completion_tokens=5,
        step_s=0.25,
    ),
]

FRAME = struct.pack(">I", 3) + b"abc"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Provide two connected sockets."""
    one, two = socket.socketpair()
    with one, two:
        yield one, two


Pair = tuple[socket.socket, socket.socket]


def test_commands_arrive_as_they_were_sent(pair: Pair) -> None:
    """Commands arrive unchanged and in order."""
    for command in COMMANDS:
        send_command(pair[0], command)
    assert [receive_command(pair[1]) for _ in COMMANDS] == COMMANDS


def test_events_arrive_as_they_were_sent(pair: Pair) -> None:
    """The events of a step arrive together and in order, even if there are none."""
    send_events(pair[0], EVENTS)
    send_events(pair[0], [])
    assert receive_events(pair[1]) == EVENTS
    assert receive_events(pair[1]) == []


def test_frame_larger_than_the_sockets_buffer_arrives_whole(pair: Pair) -> None:
    """A frame of megabytes is assembled from several reads."""
    prompt = TextPrompt([Part(text="x" * 5_000_000)])
    command = Submit(id=1, owner="a", prompt=prompt, sampling=Sampling(), max_tokens=1)
    sender = threading.Thread(target=send_command, args=[pair[0], command])
    sender.start()
    received = receive_command(pair[1])
    sender.join()
    assert received == command


@pytest.mark.parametrize("size", range(len(FRAME)))
def test_stream_that_ends_within_a_frame_is_its_end(pair: Pair, size: int) -> None:
    """An incomplete frame counts as the end of the stream."""
    pair[0].sendall(FRAME[:size])
    pair[0].close()
    assert receive_events(pair[1]) is None


def test_peer_that_died_with_unread_data_is_gone_too(pair: Pair) -> None:
    """A reset connection counts as closed and is not an error."""
    send_command(pair[1], Cancel(1))
    pair[0].close()
    assert receive_events(pair[1]) is None


def test_absurd_length_is_not_waited_for(pair: Pair) -> None:
    """After a length above the limit, no more bytes are read."""
    pair[0].sendall(struct.pack(">I", MAX_FRAME_BYTES + 1))
    assert receive_events(pair[1]) is None


@given(st.binary(max_size=40))
def test_frame_that_is_no_list_of_events_ends_the_stream(raw: bytes) -> None:
    """A frame that is not a list of events ends the stream without an exception."""
    one, two = socket.socketpair()
    with one, two:
        one.sendall(struct.pack(">I", len(raw)) + raw)
        events = receive_events(two)
        # 0x90 is an empty list, the one short frame that is right.
        assert events is None or (events == [] and raw == b"\x90")


def test_sending_to_one_who_is_gone_is_an_os_error(pair: Pair) -> None:
    """Sending to a closed socket raises OSError."""
    pair[1].close()
    with pytest.raises(OSError):
        send_command(pair[0], Cancel(1))
