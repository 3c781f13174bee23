"""How a command finds the daemon and the key for it."""

from __future__ import annotations

from pathlib import Path

from tests.support.command_line import llmd
from tests.support.fake_daemon import FakeDaemon


def test_the_key_of_the_option_overrides_the_environment(
    config: Path, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """The key is taken from --key-file, LLMD_KEY or LLMD_KEY_FILE, in this order."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("by_option\n")
    two.write_text("by_file\n")
    both = {"LLMD_KEY": "by_env", "LLMD_KEY_FILE": str(two)}
    llmd(config, "ask", "x", "--key-file", str(one), env=both)
    llmd(config, "ask", "x", env=both)
    llmd(config, "ask", "x", env={"LLMD_KEY_FILE": str(two)})
    assert daemon.keys == ["Bearer by_option", "Bearer by_env", "Bearer by_file"]


def test_without_a_key_the_error_says_how_to_name_one(
    config: Path, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """`ask` without a key fails before it calls the daemon."""
    (tmp_path / "admin.key").unlink()
    result = llmd(config, "ask", "x")
    assert result.exit_code == 1
    assert result.stderr.startswith("llmd: cannot ask: there is no key: set LLMD_KEY")
    assert daemon.keys == []


def test_a_key_that_would_break_the_header_is_refused_and_not_shown(config: Path) -> None:
    """A key with a line break is refused, and the error does not repeat it."""
    result = llmd(config, "ask", "x", env={"LLMD_KEY": "geheim\r\nx-evil: 1"})
    assert result.exit_code == 1
    assert "the key must be one word" in result.stderr
    assert "geheim" not in result.stderr


def test_an_address_can_be_given_without_a_configuration(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    """A user on another machine needs only an address and a key."""
    missing = tmp_path / "none.toml"
    env = {"LLMD_URL": daemon.url, "LLMD_KEY": "k"}
    assert llmd(missing, "ask", "x", env=env).exit_code == 0
    result = llmd(missing, "ask", "x", "--url", "localhost", env={"LLMD_KEY": "k"})
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the address must look like http://" in result.stderr


def test_the_error_for_a_missing_daemon_says_how_to_start_it(
    config: Path, daemon: FakeDaemon
) -> None:
    """If nothing listens, the error names the address and the commands that start llmd."""
    config.write_text('[server]\nlisten = ["[::]:1"]\n')
    result = llmd(config, "ask", "x")
    assert result.exit_code == 1
    assert "llmd does not answer at http://[::1]:1 (" in result.stderr
    assert "`systemctl start llmd` or `llmd serve`" in result.stderr


def test_another_server_at_the_address_is_reported(config: Path, daemon: FakeDaemon) -> None:
    """A response that is not JSON causes an error message, not a traceback."""
    daemon.answer = (200, "<html>")
    result = llmd(config, "ask", "--no-stream", "x")
    assert result.exit_code == 1
    assert "answers 200 without JSON: is llmd running there?" in result.stderr
