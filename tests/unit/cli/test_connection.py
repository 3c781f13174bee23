"""How `llmd ask` finds the daemon and the key for it."""

from __future__ import annotations

from pathlib import Path

from tests.support.command_line import llmd
from tests.support.fake_daemon import FakeDaemon


def test_the_key_of_the_option_goes_before_the_environment(
    config: Path, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """The order is --key-file, LLMD_KEY, LLMD_KEY_FILE, admin.key beside the configuration."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("by_option\n")
    two.write_text("by_file\n")
    both = {"LLMD_KEY": "by_env", "LLMD_KEY_FILE": str(two)}
    llmd(config, "ask", "x", "--key-file", str(one), env=both)
    llmd(config, "ask", "x", env=both)
    llmd(config, "ask", "x", env={"LLMD_KEY_FILE": str(two)})
    assert daemon.keys == ["Bearer by_option", "Bearer by_env", "Bearer by_file"]


def test_without_a_key_it_says_where_one_is_looked_for(
    config: Path, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """`ask` without a key asks nothing."""
    (tmp_path / "admin.key").unlink()
    result = llmd(config, "ask", "x")
    assert result.exit_code == 1
    assert result.stderr.startswith("llmd: cannot ask: there is no key: set LLMD_KEY")
    assert daemon.keys == []


def test_a_key_that_would_break_the_header_is_refused_unseen(config: Path) -> None:
    """A key file with other text is refused without repeating it."""
    result = llmd(config, "ask", "x", env={"LLMD_KEY": "geheim\r\nx-evil: 1"})
    assert result.exit_code == 1
    assert "the key must be one word" in result.stderr
    assert "geheim" not in result.stderr


def test_an_address_can_be_named_without_any_configuration(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    """A user on another machine needs an address and a key, and no file."""
    missing = tmp_path / "none.toml"
    env = {"LLMD_URL": daemon.url, "LLMD_KEY": "k"}
    assert llmd(missing, "ask", "x", env=env).exit_code == 0
    result = llmd(missing, "ask", "x", "--url", "localhost", env={"LLMD_KEY": "k"})
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the address must look like http://" in result.stderr


def test_a_daemon_that_is_not_there_is_named_with_the_way_to_start_it(
    config: Path, daemon: FakeDaemon
) -> None:
    """Nothing listens: the message has the address and what to do."""
    config.write_text('[server]\nlisten = ["[::]:1"]\n')
    result = llmd(config, "ask", "x")
    assert result.exit_code == 1
    assert "llmd does not answer at http://[::1]:1 (" in result.stderr
    assert "`systemctl start llmd` or `llmd serve`" in result.stderr


def test_another_server_at_the_address_is_told(config: Path, daemon: FakeDaemon) -> None:
    """A page that is not JSON makes a message, not a trace."""
    daemon.answer = (200, "<html>")
    result = llmd(config, "ask", "--no-stream", "x")
    assert result.exit_code == 1
    assert "answers 200 without JSON: is llmd running there?" in result.stderr
