"""The log: one handler, in the form that its reader wants.

No key, prompt or answer belongs in a message. As a net below that rule, a key of our own form that
slips into one is cut, and control characters are escaped, so that no value can begin a line.
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

# The id of the request that the running code works for; empty outside of requests.
request_id: ContextVar[str] = ContextVar("request_id", default="")

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

# At what these say below this level, no admin looks.
_LIBRARY_LEVELS = {
    "waitress": logging.WARNING,
    # It warns at each request that waits, which is what the queue is for.
    "waitress.queue": logging.ERROR,
    "alembic": logging.WARNING,
    # Its debug level shows rows, and rows hold prompts.
    "sqlalchemy": logging.WARNING,
}

_MAX_PATH = 200

_SECRET = re.compile(r"(llmd_[0-9a-z]{12})_[0-9A-Za-z]{49}")

# Controls, line and paragraph separators, marks that turn the direction of text, half surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_request_log = logging.getLogger("llmd.request")


def configure(log: Log, stream: TextIO | None = None) -> None:
    """Send all messages of the process to `stream` (default: standard error) as `log` says.

    May be called again, with other settings.
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
    # A full disk under standard error must not become a second message for each message.
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
    """Log one line for a request that has ended; what is None is left out.

    The query of `path` is never logged: people put keys there.
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
    r"""Return `text` on one line: controls as `\x0a`, a key of ours without its secret."""
    return _UNSAFE.sub(_escaped, _SECRET.sub(r"\1_***", text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class _Handler(logging.StreamHandler[TextIO]):
    """Mark the handler that `configure` made, so that it replaces no other."""


class _JournalHandler(_Handler):
    """Send entries with fields; what the journal does not take so goes to it as lines."""

    def __init__(self, stream: TextIO, journal: Journal) -> None:
        super().__init__(stream)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        try:
            sent = self._journal.send(_fields(record))
        except Exception:  # noqa: BLE001 - a message that cannot be made must not end its caller
            self.handleError(record)
            return
        if not sent:
            super().emit(record)


def _fields(record: logging.LogRecord) -> dict[str, str]:
    """Return a record as the journal keeps it: all its lines in one message, and its fields."""
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
    """Tell whether `stream` goes to the journal, and not to a file that stands in for it."""
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


class _SafeFormatter(logging.Formatter):
    """Bring a record into safe lines: the message, then those of its traceback."""

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
    """Write for systemd: each line begins with its priority, the journal knows the time."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_priority(record.levelno)}>"
        message, *rest = self.lines(record)
        return "\n".join(prefix + line for line in [f"{record.name}: {message}", *rest])


class _TextFormatter(_SafeFormatter):
    """Write for people: local time, level, where, what."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        message, *rest = self.lines(record)
        # The indent keeps a line break in the text of an exception from looking like a message.
        return "\n    ".join([f"{when} {record.levelname} {record.name}: {message}", *rest])


class _JsonFormatter(_SafeFormatter):
    """Write for programs: one object a line. JSON's own escapes make every value safe."""

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
    """Return the number that syslog, and so sd-daemon(3), gives to a level of logging."""
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7
