"""A new configuration while the daemon is running."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from llmd import config
from llmd.cli.main import cli
from llmd.config import Config
from llmd.daemon import run
from llmd.daemon.reload import LIVE, Reloader
from llmd.errors import ConfigError


class Reload:
    """A reloader with a small configuration file, and the configurations that it applied."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "llmd.toml"
        self.write("[server]\nmax_streams = 4\nmax_queue = 8\n")
        self.applied: list[Config] = []
        self.reloader = Reloader(self.file, config.load(self.file), self.applied.append)
        self.first = self.reloader.config

    def write(self, text: str) -> None:
        """Replace the contents of the file."""
        self.file.write_text(text)

    def signal(self) -> None:
        """Send SIGHUP."""
        self.reloader.on_signal(signal.SIGHUP, None)


@pytest.fixture
def reload(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Reload:
    """Provide a reloader, with its log captured."""
    caplog.set_level(logging.INFO)
    return Reload(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[server",
        "[server]\nmax_streams = 0\n",
        "[server]\nmax_stream = 4\n",
        '[store]\nurl = "nothing://x"\n',
        '[store]\nurl = "sqlite:///:memory:"\n',
        '[store]\nurl = "sqlite:////x/llmd.db?mode=ro"\n',
        None,
    ],
)
def test_a_bad_file_keeps_the_old_configuration(
    reload: Reload, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    """No option of a wrong file is applied. The log names the fault and what stays in force."""
    if text is None:
        reload.file.unlink()
    else:
        reload.write(text)
    reload.signal()
    assert reload.applied == []
    assert reload.reloader.config is reload.first
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "the old one stays" in record.getMessage()
    assert str(reload.file) in record.getMessage()


def test_live_options_take_effect_at_once(reload: Reload, caplog: pytest.LogCaptureFixture) -> None:
    """A valid configuration is applied as a whole and is then in force."""
    reload.write("[server]\nmax_streams = 2\nmax_queue = 8\ndrain_s = 3.0\n")
    reload.signal()
    [applied] = reload.applied
    assert applied is reload.reloader.config
    assert (applied.server.max_streams, applied.server.drain_s) == (2, 3.0)
    assert "server.drain_s, server.max_streams" in caplog.text
    assert all(record.levelno == logging.INFO for record in caplog.records)


def test_options_that_need_a_restart_are_named(
    reload: Reload, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names every changed option that is not live, and no other."""
    reload.write(
        '[server]\nmax_streams = 4\nmax_queue = 8\nlisten = ["127.0.0.1:1"]\ndrain_s = 3.0\n'
        "[engine]\nthreads = 2\n"
    )
    reload.signal()
    [warning] = [at.getMessage() for at in caplog.records if at.levelno == logging.WARNING]
    assert warning == "a restart is needed to apply engine.threads, server.listen"


def test_an_unchanged_file_changes_nothing(
    reload: Reload, caplog: pytest.LogCaptureFixture
) -> None:
    """A reload without changes says so in the log."""
    reload.signal()
    assert reload.reloader.config == reload.first
    assert "nothing changed" in caplog.text


def test_more_requests_than_threads_are_refused(
    reload: Reload, caplog: pytest.LogCaptureFixture
) -> None:
    """Streams and queue together are limited by the threads that were created at the start."""
    reload.write("[server]\nmax_streams = 5\nmax_queue = 8\n")
    reload.signal()
    assert reload.applied == []
    assert "12" in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR
    reload.write("[server]\nmax_streams = 1\nmax_queue = 1\n")
    reload.signal()
    reload.write("[server]\nmax_streams = 8\nmax_queue = 4\n")
    reload.signal()
    assert reload.reloader.config.server.max_streams == 8


def test_every_live_option_exists() -> None:
    """Every name in `LIVE` is an option: a mistyped one would seem to need a restart."""
    options = {
        f"{section}.{name}"
        for section, values in msgspec.to_builtins(config.Config()).items()
        for name in values
    }
    assert options >= LIVE


WRONG = [
    "[server",
    "[server]\nmax_streams = 0\n",
    '[store]\nurl = "nothing://x"\n',
    '[store]\nurl = "sqlite:///:memory:"\n',
    '[store]\nurl = "sqlite:////x/llmd.db?mode=ro"\n',
    '[engine]\nkv_type = "q8_0"\nflash_attention = "off"\n',
]


@pytest.mark.parametrize("text", WRONG)
def test_start_reload_and_config_check_refuse_the_same(
    reload: Reload, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """A file that `llmd config check` refuses is refused by SIGHUP and by the start too."""
    reload.write(text)
    with pytest.raises(ConfigError) as at_start:
        run.serve(reload.file)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    reload.signal()
    assert reload.applied == []
    assert at_start.value.message in caplog.text
    checked = CliRunner().invoke(cli, ["config", "check", str(reload.file)])
    assert checked.exit_code == 78
    assert str(reload.file) in checked.output
