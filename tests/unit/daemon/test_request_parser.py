"""Requests whose end, path or host a proxy could understand differently."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waitress.adjustments import Adjustments
from waitress.buffers import OverflowableBuffer

from llmd.daemon.chunked_body import ChunkedBody
from llmd.daemon.request_parser import Parser
from tests.support.echo_server import Running

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def post(
    headers: bytes, body: bytes = b"", *, target: bytes = b"/", version: bytes = b"1.1"
) -> bytes:
    """Return a POST request with these headers and this body."""
    return b"POST %b HTTP/%b\r\n%b\r\n%b" % (target, version, headers, body)


HOST = b"Host: x\r\n"
FIVE = b"Content-Length: 5\r\n"

AMBIGUOUS = {
    "length and coding": post(HOST + FIVE + CHUNKED, b"0\r\n\r\n"),
    "coding and length": post(HOST + CHUNKED + FIVE, b"0\r\n\r\n"),
    "chunked twice": post(HOST + b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"),
    "chunked in two lines": post(HOST + CHUNKED + CHUNKED, b"0\r\n\r\n"),
    "chunked and nothing": post(HOST + b"Transfer-Encoding: chunked,\r\n", b"0\r\n\r\n"),
    "an empty coding": post(HOST + b"Transfer-Encoding:\r\n", b"0\r\n\r\n"),
    "a control character in the coding": post(
        HOST + b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"
    ),
    "a coding in HTTP/1.0": post(HOST + CHUNKED, b"0\r\n\r\n", version=b"1.0"),
    "two lengths": post(HOST + FIVE + b"Content-Length: 0\r\n", b"hello"),
    "the same length twice": post(HOST + FIVE + FIVE, b"hello"),
    "a list of lengths": post(HOST + b"Content-Length: 5, 5\r\n", b"hello"),
    "a signed length": post(HOST + b"Content-Length: +5\r\n", b"hello"),
    "a space before the colon": post(HOST + b"Content-Length : 5\r\n", b"hello"),
    "two hosts": post(HOST + b"Host: y\r\n"),
    "the same host twice": post(HOST + HOST),
    "a list of hosts": post(b"Host: x, y\r\n"),
    "a host with a user": post(b"Host: x@y\r\n"),
    "a host with a path": post(b"Host: x/y\r\n"),
    "no host": post(b"Accept: */*\r\n"),
    "another host in the target": post(HOST, target=b"http://y/"),
    "a header on two lines": post(HOST + b"X: a\r\n b\r\n"),
    "a folded coding": post(HOST + b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"),
    "a folded first header": post(b" Host: x\r\n"),
    "a bare LF in a header": post(HOST + b"X: a\nContent-Length: 5\r\n", b"hello"),
    "a bare CR in a header": post(HOST + b"X: a\rContent-Length: 5\r\n", b"hello"),
    "a NUL in the path": post(HOST, target=b"/a\0b"),
    "an encoded NUL in the path": post(HOST, target=b"/a%00b"),
    "a tab in the path": post(HOST, target=b"/a\tb"),
    "a fragment": post(HOST, target=b"/a#b"),
    "a path without a slash": post(HOST, target=b"a"),
    "another scheme": post(HOST, target=b"ftp://x/"),
    "an asterisk": post(HOST, target=b"*"),
    "version 9.9": post(HOST, version=b"9.9"),
    "version 2.0": post(HOST, version=b"2.0"),
    "version 1.2": post(HOST + CHUNKED, b"0\r\n\r\n", version=b"1.2"),
    "version 1.10": post(HOST, version=b"1.10"),
    "no version": b"GET /\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space after the version": b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
    "whitespace before the method": b"\r\n GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a malformed address in the target": post(HOST, target=b"http://[/"),
}


@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_ambiguous_request_is_refused_and_nothing_behind_it_runs(
    running: Running, raw: bytes
) -> None:
    """The response is one 400, the connection is closed, and no request is run."""
    num_before = running.num_requests
    with running.connect(raw + SMUGGLED) as client:
        received = b""
        while data := client.recv(65536):
            received += data
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert received.count(b"\r\nDate: ") == 1
    assert b"Connection: close" in received
    assert running.num_requests == num_before


PLAIN = {
    "a length": post(HOST + FIVE, b"hello"),
    "chunks": post(HOST + CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"),
    "chunks in capitals": post(
        HOST + b"transfer-encoding: Chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"
    ),
    "an extension": post(HOST + CHUNKED, b'5;a=b;c="d"\r\nhello\r\n0\r\n\r\n'),
    "a trailer": post(HOST + CHUNKED, b"05\r\nhello\r\n000\r\nA: b\r\n\r\n"),
    "empty lines before it": b"\r\n\r\n" + post(HOST + FIVE, b"hello"),
    "an absolute target": post(HOST + FIVE, b"hello", target=b"http://x/"),
    "an absolute target without a path": post(HOST + FIVE, b"hello", target=b"http://X"),
    "a port": post(b"Host: [::1]:5000\r\n" + FIVE, b"hello"),
    "an empty host": post(b"Host:\r\n" + FIVE, b"hello"),
    "HTTP/1.0 without a host": post(b"Connection: keep-alive\r\n" + FIVE, b"hello", version=b"1.0"),
}


@pytest.mark.parametrize("raw", PLAIN.values(), ids=PLAIN)
def test_a_plain_request_is_answered_and_so_is_the_next(running: Running, raw: bytes) -> None:
    """Everything that clients and proxies really send is understood as they mean it."""
    with running.connect(raw) as client:
        for _ in range(2):
            received = b""
            while not received.endswith(b"}"):
                received += client.recv(65536)
            assert b" 200 OK\r\n" in received
            assert received.endswith(b'{"length": 5}')
            client.sendall(raw)


def test_a_refused_request_is_not_asked_to_continue(running: Running) -> None:
    """A body that is too large is refused at once: the client is never asked to send it."""
    head = HOST + b"Expect: 100-continue\r\nContent-Length: 99999\r\n"
    with running.connect(post(head)) as client:
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_request_is_asked_to_continue_if_it_has_a_body(running: Running) -> None:
    """A client that waits before it sends its body is asked for it, if there is one."""
    expects = HOST + b"Expect: 100-continue\r\n"
    with running.connect(post(expects + FIVE)) as client:
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hello")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    with running.connect(post(expects)) as client:
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_refused_head_request_gets_no_body(running: Running) -> None:
    """The response to HEAD has no body, even if the request is refused."""
    with running.connect(b"HEAD / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n") as client:
        received = b""
        while data := client.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.endswith(b"\r\n\r\n")


def parse(raw: bytes, size: int) -> tuple[bytes | None, int]:
    """Parse a request in pieces. Return its body, None if it is refused, and its length."""
    parser = Parser(Adjustments(max_request_body_size=1_000_000))
    num_taken = 0
    while num_taken < len(raw) and not parser.completed:
        num_taken += parser.received(raw[num_taken : num_taken + size])
    if parser.error is not None:
        return None, num_taken
    is_request = parser.completed and not parser.empty
    return parser.get_body_stream().read() if is_request else b"?", num_taken


@given(size=st.integers(1, 40), chunks=st.lists(st.binary(min_size=1, max_size=30)))
def test_the_end_of_a_request_does_not_depend_on_its_packets(
    size: int, chunks: list[bytes]
) -> None:
    """However a chunked request is cut into packets, its body and its end are the same."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    raw = post(HOST + CHUNKED, body)
    assert parse(raw + b"next", size) == (b"".join(chunks), len(raw))


WRONG_CHUNKS = [
    b"5\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\n\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5\r\nhelloo\r\n0\r\n\r\n",
    b"4\r\nhello\r\n0\r\n\r\n",
    b"\r\n5\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"5_0\r\nhello\r\n0\r\n\r\n",
    b"5;\x0b\r\nhello\r\n0\r\n\r\n",
    b"5;a\n=b\r\nhello\r\n0\r\n\r\n",
    b"5;" + b"a" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
    b"0" * 5000 + b"5\r\nhello\r\n0\r\n\r\n",
    b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    b"0\r\nno colon\r\n\r\n",
    b"0\r\nA: b\n\r\n\r\n",
    b"0\r\n A: b\r\n\r\n",
    b"0\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
    b"0\r\n\n",
]


@pytest.mark.parametrize("body", WRONG_CHUNKS, ids=range(len(WRONG_CHUNKS)))
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_malformed_chunk_is_refused(body: bytes, size: int) -> None:
    """A chunk, its extension or a trailer that is not exactly as the standard says is refused."""
    assert parse(post(HOST + CHUNKED, body), size)[0] is None


def test_a_refused_body_takes_all_that_arrives() -> None:
    """What follows a malformed chunk is not left to be read as another request."""
    body = ChunkedBody(OverflowableBuffer(1000))
    assert body.received(b"x\r\n" + SMUGGLED) == len(b"x\r\n" + SMUGGLED)
    assert body.error is not None


@pytest.mark.parametrize("raw", PLAIN.values(), ids=PLAIN)
def test_no_beginning_of_a_request_is_complete(raw: bytes) -> None:
    """A request is complete only with its last byte."""
    for end in range(1, len(raw)):
        assert parse(raw[:end], 100_000)[0] == b"?"
