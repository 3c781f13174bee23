"""Parse the head of a request, and refuse each that a proxy could read differently.

If a proxy in front of llmd and llmd itself disagree about where a request ends or whom it is for,
the rest of one request becomes another one, which the proxy never checked. RFC 9112 therefore
requires or allows an error in each of these cases. waitress accepts them.
"""

from __future__ import annotations

import re
from typing import Any

from waitress.buffers import OverflowableBuffer
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.utilities import BadRequest

from llmd.daemon.chunked_body import ChunkedBody

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) HTTP/1\.([01])")
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+;=%-]*|\[[0-9A-Fa-f:.]+(?:%25[^\]]+)?\])(?::[0-9]*)?")


class Parser(HTTPRequestParser):
    """The parser of one request. Its errors are responses with the status 400, or 501."""

    adj: Any
    body_rcv: Any
    chunked: bool
    command: str
    completed: bool
    header_plus: bytes
    path: str
    version: str

    def received(self, data: bytes) -> int:
        """Take bytes from the client, and return how many of them belong to the request."""
        if self.body_rcv is None and not self.header_plus.strip(b"\r\n"):
            # waitress drops all whitespace before the request line. Only empty lines are allowed.
            first = (self.header_plus + data).lstrip(b"\r\n")[:1]
            if first.isspace():
                self.parse_header(b"GET / HTTP/1.0\r\n")
                self.error = BadRequest("the request begins with whitespace")
                self.completed = True
                return len(data)
        num_taken = int(super().received(data))
        if self.completed:
            # Otherwise waitress would ask for a body that there is not, or that was refused.
            self.expect_continue = False
        return num_taken

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the head. Raise `ParsingError` if it is wrong."""
        first, _, rest = header_plus.partition(b"\r\n")
        line = _REQUEST_LINE.fullmatch(first)
        if line is None:
            raise ParsingError("the request line must be 'METHOD /path HTTP/1.1', or HTTP/1.0")
        # An error response needs the method and the version too.
        self.command, self.version = line[1].decode(), f"1.{line[3].decode()}"
        lines = rest.split(b"\r\n")
        if any(line.startswith((b" ", b"\t")) for line in lines):
            raise ParsingError("a header is continued on another line")
        fields: dict[bytes, list[bytes]] = {}
        for field in lines:
            name, _, value = field.partition(b":")
            fields.setdefault(name.lower(), []).append(value)
        _check_framing(fields, is_first_version=line[3] == b"0")
        if len(fields.get(b"host", ())) > 1:
            raise ParsingError("there are two Host headers")
        try:
            super().parse_header(header_plus)
        except ValueError:
            # int() refuses numbers of more than 4,300 digits, and urlsplit() a malformed IPv6.
            raise ParsingError("a number or an address in the head cannot be read") from None
        self._check_target(line[2].decode("latin-1"))
        if self.chunked:
            self.body_rcv = ChunkedBody(OverflowableBuffer(self.adj.inbuf_overflow))

    def _check_target(self, target: str) -> None:
        """Check the Host header and the target of the request line."""
        host = self.headers.get("HOST")
        if host is None and self.version == "1.1":
            raise ParsingError("the Host header is missing")
        if host is not None and not _HOST.fullmatch(host):
            raise ParsingError("the Host header is not a host name with an optional port")
        if self.proxy_scheme.lower() in {"http", "https"} and self.proxy_netloc:
            if host is not None and self.proxy_netloc.lower() != host.lower():
                raise ParsingError("the target of the request and the Host header differ")
            # The target may consist of scheme and host alone.
            self.path = self.path or "/"
        elif not target.startswith("/") and (self.command, target) != ("OPTIONS", "*"):
            raise ParsingError("the target of the request must be a path")
        if "#" in target:
            raise ParsingError("the target of the request has a fragment")
        if "\0" in self.path:
            raise ParsingError("the path has a NUL character")


def _check_framing(fields: dict[bytes, list[bytes]], *, is_first_version: bool) -> None:
    """Raise `ParsingError` if the length of the body could be understood in two ways.

    `is_first_version` stands for HTTP/1.0, in which `Transfer-Encoding` means nothing.
    """
    codings, lengths = fields.get(b"transfer-encoding", []), fields.get(b"content-length", [])
    if len(lengths) > 1:
        raise ParsingError("there are two Content-Length headers")
    if not codings:
        return
    if lengths:
        raise ParsingError("there are both Content-Length and Transfer-Encoding")
    if is_first_version:
        raise ParsingError("HTTP/1.0 has no Transfer-Encoding")
    names = [name.strip(b" \t").lower() for name in b",".join(codings).split(b",")]
    # waitress itself refuses every other coding, with the status 501.
    if names != [b"chunked"] and not set(names) - {b"chunked", b""}:
        raise ParsingError("Transfer-Encoding must be 'chunked', once")
