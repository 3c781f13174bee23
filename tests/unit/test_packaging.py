"""The manual pages and the package match the program."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import click
import msgspec
import pytest

from llmd.cli.main import cli
from llmd.config import Config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page() -> str:
    """Return the text of llmd.toml(5)."""
    options = runpy.run_path(str(ROOT / "packaging/deb/man/options.py"))
    text = (ROOT / "etc/llmd.toml").read_text()
    return str(options["render"](text, "0.1.0-1"))


def test_every_option_has_its_paragraph_in_the_manual(page: str) -> None:
    """Each option is in the section of its table, with its default."""
    for section in msgspec.structs.fields(Config):
        _, _, rest = page.partition(f".SH SECTION [{section.name}]\n")
        paragraphs = rest.partition(".SH ")[0].split(".TP\n")[1:]
        described = {paragraph.splitlines()[0].removeprefix(".B ") for paragraph in paragraphs}
        assert described == {field.name for field in msgspec.structs.fields(section.type)}
        assert all("Default: " in paragraph for paragraph in paragraphs)


def test_the_manual_uses_only_known_macros(page: str) -> None:
    """Only known macros begin a line with a dot or a quote."""
    macros = {line.split()[0] for line in page.splitlines() if line.startswith((".", "'"))}
    assert macros <= {".TH", ".SH", ".PP", ".TP", ".B", ".I", ".BR", ".br"}


def test_every_command_is_in_the_manual() -> None:
    """The manual lists every command, and every command of each group."""
    manual = (ROOT / "packaging/deb/man/llmd.8").read_text().replace("\\-", "-")
    for name, command in cli.commands.items():
        lines = [line for line in manual.splitlines() if re.search(rf"^\.BI? \"?{name}\b", line)]
        assert lines, name
        if isinstance(command, click.Group):
            words = set(re.findall(r"\w+", " ".join(lines)))
            assert set(command.commands) <= words, name


def test_the_version_is_the_same_everywhere() -> None:
    """The package has the version of the program."""
    changelog = (ROOT / "packaging/deb/changelog").read_text()
    version = re.match(r"llmd \(([0-9.]+)-", changelog)
    assert version
    assert f'"{version[1]}"' in (ROOT / "llmd/__init__.py").read_text()
