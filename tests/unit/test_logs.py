from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd import logs
from llmd.config import Log

KEY = "llmd_0123456789ab_" + "S" * 43 + "c" * 6


@pytest.fixture(autouse=True)
def _root_logger_is_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    logging.raiseExceptions = raising


def start(form: str = "text", level: str = "info") -> io.StringIO:
    """Send the log to a new stream and return it."""
    stream = io.StringIO()
    logs.configure(Log(format=form, level=level), stream)  # type: ignore[arg-type]
    return stream


def fail(message: str) -> None:
    """Log an exception with this message."""
    error = ValueError(message)
    try:
        raise error
    except ValueError:
        logging.getLogger("llmd.x").exception("it broke")


def test_text_line_has_local_time_level_and_name() -> None:
    """A line for people has the local time, the level, the logger and the message."""
    stream = start()
    logging.getLogger("llmd.x").warning("low on %s", "memory")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d WARNING llmd\.x: low on memory\n", stream.getvalue()
    )


@pytest.mark.parametrize(
    ("level", "priority"), [("critical", 2), ("error", 3), ("warning", 4), ("info", 6)]
)
def test_journal_line_begins_with_its_priority(level: str, priority: int) -> None:
    """The <N> before a message is the priority that systemd reads."""
    stream = start("journal")
    getattr(logging.getLogger("llmd.x"), level)("hello")
    assert stream.getvalue() == f"<{priority}>llmd.x: hello\n"


def test_each_line_of_a_traceback_has_the_priority() -> None:
    """Every line of a traceback has the same priority in the journal, whatever its text."""
    stream = start("journal")
    fail("first\n<0>second")
    lines = stream.getvalue().splitlines()
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)
    assert lines[-1] == "<3><0>second"


def test_traceback_in_text_is_indented() -> None:
    """No line of an exception's text can pass for a message."""
    stream = start()
    fail("first\n2026-01-01 00:00:00 INFO llmd: forged")
    message, *rest = stream.getvalue().splitlines()
    assert "it broke" in message
    assert rest
    assert all(line.startswith("    ") for line in rest)


def test_json_line_is_one_object() -> None:
    """A line for programs contains the message, its traceback and the fields of a request."""
    stream = start("json")
    fail("first\nsecond")
    logs.log_request("POST", "/answer", 200, 0.5321, key_id="ab12", num_prompt_tokens=31)
    error, request = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (error["level"], error["logger"], error["message"]) == ("error", "llmd.x", "it broke")
    assert error["traceback"].endswith("ValueError: first\nsecond")
    assert (request["path"], request["status"], request["ms"]) == ("/answer", 200, 532)
    assert (request["key"], request["prompt"]) == ("ab12", 31)
    assert "cached" not in request


def test_request_is_one_line() -> None:
    """The line for a request has its status, duration, key and token counts."""
    stream = start("journal")
    token = logs.request_id.set("r-1")
    logs.log_request(
        "POST",
        "/answer",
        200,
        0.5321,
        key_id="ab12",
        num_prompt_tokens=31,
        num_cached_tokens=0,
        num_completion_tokens=12,
    )
    logs.request_id.reset(token)
    logs.log_request("GET", "/livez", 200, 0)
    assert stream.getvalue() == (
        "<6>llmd.request: POST /answer 200 532ms key=ab12 prompt=31 cached=0 completion=12 "
        "request=r-1\n"
        "<6>llmd.request: GET /livez 200 0ms\n"
    )


def test_query_is_not_logged_and_a_long_path_is_cut() -> None:
    """The line for a request is short, and does not contain the query of its URL."""
    stream = start()
    logs.log_request("GET", "/models?key=hunter2", 401, 0)
    logs.log_request("GET", "/" + "a" * 10_000, 404, 0)
    assert "hunter2" not in stream.getvalue()
    assert len(stream.getvalue()) < 500


def test_request_id_is_on_each_line_of_its_context() -> None:
    """Each message that is logged while a request is served contains its id."""
    text, as_json = start(), io.StringIO()
    token = logs.request_id.set("r-7")
    logging.getLogger("llmd.x").info("hello")
    logs.configure(Log(format="json"), as_json)
    logging.getLogger("llmd.x").info("hello")
    logs.request_id.reset(token)
    assert text.getvalue().endswith("hello request=r-7\n")
    assert json.loads(as_json.getvalue())["request"] == "r-7"


@pytest.mark.parametrize("form", ["text", "journal", "json"])
@settings(max_examples=60)
@given(value=st.text(max_size=30))
def test_no_value_starts_a_new_line(form: str, value: str) -> None:
    """A message is one line of printable text, whatever values it contains."""
    stream = start(form)
    logging.getLogger("llmd.x").info("name %s", value)
    logged = stream.getvalue()
    assert logged.endswith("\n")
    assert len(logged.splitlines()) == 1
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e\ud800-\udfff]", logged[:-1])


@pytest.mark.parametrize("form", ["text", "journal", "json"])
def test_secret_of_a_key_is_masked(form: str) -> None:
    """A key in a message or an exception is logged without its secret."""
    stream = start(form)
    logging.getLogger("llmd.x").error("cannot use %s", KEY)
    fail(f"got {KEY}")
    assert stream.getvalue().count("llmd_0123456789ab_***") == 2
    assert "SSSS" not in stream.getvalue()


def test_libraries_log_only_warnings() -> None:
    """Even at level debug, waitress, Alembic and SQLAlchemy log only warnings and errors."""
    stream = start(level="debug")
    for name in ("waitress", "alembic.runtime.migration", "sqlalchemy.engine.Engine"):
        logging.getLogger(name).info("chatter")
    logging.getLogger("waitress.queue").warning("Task queue depth is 1")
    logging.getLogger("llmd.x").debug("wanted")
    logging.getLogger("waitress").warning("wanted too")
    assert [line.split(": ")[-1] for line in stream.getvalue().splitlines()] == [
        "wanted",
        "wanted too",
    ]


def test_second_configuration_replaces_the_first() -> None:
    """After a reload each message is logged once, in the new format and at the new level."""
    first = start()
    second = start("journal", "error")
    logging.getLogger("llmd.x").info("quiet")
    logging.getLogger("llmd.x").error("loud")
    assert first.getvalue() == ""
    assert second.getvalue() == "<3>llmd.x: loud\n"


@pytest.mark.parametrize(("own", "start_of_line"), [(True, "<6>"), (False, "20")])
def test_auto_is_journal_only_if_the_stream_is_the_journal(
    own: bool, start_of_line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JOURNAL_STREAM has device and inode; a stream redirected to a file gets the text format."""
    file = tmp_path / "log"
    with file.open("w") as stream:
        stat = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino + (not own)}")
        logs.configure(Log(), stream)
        logging.getLogger("llmd.x").info("hello")
    assert file.read_text().startswith(start_of_line)
