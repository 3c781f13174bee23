"""Logging: one handler that writes for people, for programs or for systemd's journal.

A message must contain no key, prompt or answer. In case one does, the secret of an llmd key is
masked. Control characters are escaped, so that no logged value can start a new line.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from contextvars import ContextVar
from typing import TextIO

from llmd.config import Log
from llmd.journal import Journal

# The id of the request that the current code serves; empty outside of requests.
request_id: ContextVar[str] = ContextVar("request_id", default="")

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

# Lowest level logged for each library: their messages below it do not help an admin.
_LIBRARY_LEVELS = {
    "waitress": logging.WARNING,
    # waitress warns about each request that waits for a thread, which is normal here.
    "waitress.queue": logging.ERROR,
    "alembic": logging.WARNING,
    # SQLAlchemy's debug level shows rows, and rows contain prompts.
    "sqlalchemy": logging.WARNING,
}

_MAX_PATH = 200

_SECRET = re.compile(r"(llmd_[0-9a-z]{12})_[0-9A-Za-z]{49}")

# Control characters, line and paragraph separators, bidirectional marks and lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_request_log = logging.getLogger("llmd.request")


def configure(log: Log, stream: TextIO | None = None) -> None:
    """Send all messages of the process to `stream`, or to standard error, as `log` says.

    Calling it again replaces the earlier settings.
    """
    stream = sys.stderr if stream is None else stream
    formatter = _formatter(log.format, stream)
    uses_protocol = isinstance(formatter, _JournalFormatter) and _is_journal(stream)
    handler = _JournalHandler(stream, Journal()) if uses_protocol else _Handler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(_LEVELS[log.level])
    for name, level in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(max(level, _LEVELS[log.level]))
    logging.captureWarnings(True)
    # If standard error cannot be written, logging must not report that for each message.
    logging.raiseExceptions = False


def log_request(
    method: str,
    path: str,
    status: int,
    took_s: float,
    *,
    key_id: str | None = None,
    num_prompt_tokens: int | None = None,
    num_cached_tokens: int | None = None,
    num_completion_tokens: int | None = None,
    level: int = logging.INFO,
    details: dict[str, int] | None = None,
) -> None:
    """Log one line for a request that has ended. Values that are None are left out.

    The query of `path` is never logged, because people put keys there.
    """
    path = path.partition("?")[0]
    if len(path) > _MAX_PATH:
        path = path[:_MAX_PATH] + "…"
    counts = {
        "key": key_id,
        "prompt": num_prompt_tokens,
        "cached": num_cached_tokens,
        "completion": num_completion_tokens,
        **(details or {}),
    }
    fields = {name: value for name, value in counts.items() if value is not None}
    ms = round(took_s * 1000)
    text = f"{method} {path} {status} {ms}ms"
    text += "".join(f" {name}={value}" for name, value in fields.items())
    fields = {"method": method, "path": path, "status": status, "ms": ms, **fields}
    _request_log.log(level, "%s", text, extra={"fields": fields})


def escape(text: str) -> str:
    r"""Return `text` on one line: control characters as `\x0a`, llmd keys without secret."""
    return _UNSAFE.sub(_escaped, _SECRET.sub(r"\1_***", text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class _Handler(logging.StreamHandler[TextIO]):
    """The handler that `configure` installs; a class of its own, so that no other is replaced."""


class _JournalHandler(_Handler):
    """Sends entries with fields to the journal, or as plain lines if it refuses them."""

    def __init__(self, stream: TextIO, journal: Journal) -> None:
        super().__init__(stream)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record to the journal, or write it to the stream if that fails."""
        try:
            sent = self._journal.send(_fields(record))
        except Exception:  # noqa: BLE001 - logging must never end its caller
            self.handleError(record)
            return
        if not sent:
            super().emit(record)


def _fields(record: logging.LogRecord) -> dict[str, str]:
    """Return the fields of a journal entry for a record; all its lines are one MESSAGE."""
    lines = _SafeFormatter().lines(record)
    fields = {
        "MESSAGE": "\n".join([f"{record.name}: {lines[0]}", *lines[1:]]),
        "PRIORITY": str(_priority(record.levelno)),
        "SYSLOG_IDENTIFIER": "llmd",
        "LLMD_LOGGER": record.name,
    }
    if request := request_id.get():
        fields["LLMD_REQUEST"] = escape(request)
    for name, value in getattr(record, "fields", {}).items():
        fields[f"LLMD_{name.upper()}"] = escape(str(value))
    return fields


def _formatter(form: str, stream: TextIO) -> logging.Formatter:
    if form == "json":
        return _JsonFormatter()
    if form == "journal" or (form == "auto" and _is_journal(stream)):
        return _JournalFormatter()
    return _TextFormatter()


def _is_journal(stream: TextIO) -> bool:
    """Return whether `stream` is connected to the journal, as systemd.exec(5) describes."""
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


class _SafeFormatter(logging.Formatter):
    """Base of the formats: a record as escaped lines, its message before its traceback."""

    def lines(self, record: logging.LogRecord) -> list[str]:
        message = escape(record.getMessage())
        if request := request_id.get():
            message += f" request={escape(request)}"
        return [message, *(escape(line) for line in self.traceback(record))]

    def traceback(self, record: logging.LogRecord) -> list[str]:
        parts = []
        if record.exc_info:
            parts.append(self.formatException(record.exc_info))
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return "\n".join(parts).split("\n") if parts else []


class _JournalFormatter(_SafeFormatter):
    """The format for systemd: each line begins with its priority; the journal adds the time."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_priority(record.levelno)}>"
        message, *rest = self.lines(record)
        return "\n".join(prefix + line for line in [f"{record.name}: {message}", *rest])


class _TextFormatter(_SafeFormatter):
    """The format for people: local time, level, logger and message."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        message, *rest = self.lines(record)
        # Indented, so that a line of an exception's text cannot pass for a message.
        return "\n    ".join([f"{when} {record.levelname} {record.name}: {message}", *rest])


class _JsonFormatter(_SafeFormatter):
    """The format for programs: one JSON object per line. JSON itself escapes every value."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, object] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := request_id.get():
            entry["request"] = request
        entry |= getattr(record, "fields", {})
        if traceback := self.traceback(record):
            entry["traceback"] = "\n".join(traceback)
        return _SECRET.sub(r"\1_***", json.dumps(entry))


def _priority(level: int) -> int:
    """Return the syslog priority of a logging level, as sd-daemon(3) wants it."""
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7
