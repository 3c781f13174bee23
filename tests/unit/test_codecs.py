"""Codecs: types are prepared in the main thread, before any thread converts to them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from llmd import codecs
from llmd.api.access import Access
from llmd.api.route import Operation
from llmd.codecs import Codec
from tests.support import first_requests
from tests.support.service import Background

NUM_STARTS = int(os.environ.get("LLMD_TEST_STARTS", "12"))
"""The number of starts of the application. Without codecs, one in five ended in a SIGSEGV."""


class Inner(Struct):
    number: int


class Outer(Struct):
    inner: Inner
    more: list[Inner] = []


def test_first_requests_at_once_never_end_the_process(tmp_path: Path) -> None:
    """32 first requests at once, in threads, are answered at each start of the application."""
    command = [sys.executable, first_requests.__file__, str(tmp_path), str(NUM_STARTS)]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_codec_reads_json_msgpack_and_plain_values() -> None:
    """The same codec reads every form of a value."""
    codec: Codec[Outer] = Codec(Outer)
    value = Outer(Inner(1), [Inner(2)])
    assert codec.decode_json(msgspec.json.encode(value)) == value
    assert codec.decode_msgpack(msgspec.msgpack.encode(value)) == value
    assert codec.convert(msgspec.to_builtins(value)) == value
    assert codec.convert(value, from_attributes=True) == value


def test_codec_cannot_be_created_in_another_thread() -> None:
    """A codec that a request would create is an error of the program at each request."""
    with pytest.raises(RuntimeError, match="main thread"):
        Background(lambda: Codec(Outer)).wait()


def test_body_of_an_operation_has_a_codec() -> None:
    """Describing a route prepares the type of its body."""
    with pytest.raises(LookupError, match="Inner"):
        codecs.codec_of(Inner)
    Operation(summary="", access=Access.USER, body=Outer)
    assert codecs.codec_of(Outer).convert({"inner": {"number": 1}}) == Outer(Inner(1))
