"""`llmd profile` on a database of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import llmd, write_config

SEED = {
    "SelectedModel": "Vicuna-13b",
    "Vicuna-13b": {
        "model": "vicuna.gguf",
        "n_ctx": 4096,
        "temperature": 0.5,
        "max_tokens": 1000,
        "verbose": True,
        "template": "CURRENT CONVERSATION: {chat_history}\n\nPROMPT: {input}\n\nGUIONISTA:",
    },
    "Other": {"model": "other.gguf"},
}


def profile(config: Path, name: str) -> dict[str, Any]:
    """Return the fields that `profile show --json` prints."""
    shown: dict[str, Any] = json.loads(llmd(config, "profile", "show", name, "--json").stdout)
    return shown


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Provide a configuration after `llmd init`."""
    file = write_config(tmp_path)
    assert llmd(file, "init", "--key-file", str(tmp_path / "admin.key")).exit_code == 0
    return file


def test_set_changes_the_given_fields_and_keeps_the_rest(config: Path) -> None:
    """`profile set` merges the fields into the present revision and stores a new one."""
    assert llmd(config, "profile", "set", "default", "temperature=0.2").exit_code == 0
    assert llmd(config, "profile", "set", "default", "top_k=7").exit_code == 0
    shown = profile(config, "default")
    assert (shown["temperature"], shown["top_k"], shown["revision"]) == (0.2, 7, 3)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("system=12", "12"),
        ("system=a=b\nc", "a=b\nc"),
        ("system=null", "null"),
        ("template=Q: {input}", "Q: {input}"),
        ("seed=4", 4),
        ("n_ctx=2048", 2048),
        ("stop=END", ["END"]),
        ("stop=7", ["7"]),
        ('stop=["a", "b"]', ["a", "b"]),
        ("stop=[]", []),
    ],
)
def test_a_value_is_parsed_by_the_type_of_its_field(
    config: Path, setting: str, value: object
) -> None:
    """Texts need no quotes, numbers and lists are JSON, and one text can stand for a list."""
    result = llmd(config, "profile", "set", "new", setting)
    assert result.exit_code == 0, result.stderr
    assert profile(config, "new")[setting.partition("=")[0]] == value


def test_null_removes_a_value(config: Path) -> None:
    """`null` removes the value of a field that may be empty."""
    llmd(config, "profile", "set", "new", "seed=4", "template={input}", "n_ctx=512")
    llmd(config, "profile", "set", "new", "seed=null", "template=null", "n_ctx=null")
    shown = profile(config, "new")
    assert (shown["seed"], shown["template"], shown["n_ctx"]) == (None, None, None)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("temperature=3", "temperature: expected `float` <= 2.0"),
        ("temperature=NaN", "temperature: expected `float` >= 0.0"),
        ("max_tokens=many", "max_tokens: expected `int`, got `str`"),
        ("temprature=1", "no field 'temprature': did you mean temperature?"),
        ("template=no place", "template must contain {input} exactly once"),
        ("model=../x.gguf", "model must be empty or a plain file name"),
        ('stop=["a", 1]', "stop[1]: expected `str`, got `int`"),
    ],
)
def test_a_wrong_value_is_reported_with_its_field_and_changes_nothing(
    config: Path, setting: str, words: str
) -> None:
    """The error names the field and what would be right, and no revision is stored."""
    result = llmd(config, "profile", "set", "default", "top_k=1", setting)
    assert result.exit_code == 1
    assert result.stderr.startswith("llmd: cannot set the profile: ")
    assert words in result.stderr
    assert profile(config, "default")["revision"] == 1


@pytest.mark.parametrize("settings", [[], ["top_k"]])
def test_set_without_a_setting_is_wrong_usage(config: Path, settings: list[str]) -> None:
    """`profile set` needs FIELD=VALUE or a file."""
    assert llmd(config, "profile", "set", "default", *settings).exit_code == 2


def test_set_reads_what_export_prints(config: Path, tmp_path: Path) -> None:
    """`profile set --file` restores an export, and FIELD=VALUE overrides the file."""
    llmd(config, "profile", "set", "one", "stop=END", "template=Ä {input}", "seed=9")
    file = tmp_path / "one.json"
    file.write_text(llmd(config, "profile", "export", "one").stdout)
    llmd(config, "profile", "set", "two", "--file", str(file))
    llmd(config, "profile", "set", "three", "--file", str(file), "seed=1")
    assert llmd(config, "profile", "export", "two").stdout == file.read_text()
    assert profile(config, "three")["seed"] == 1
    assert profile(config, "three")["stop"] == ["END"]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"top_kk": 1}', '{"top_k": "x"}', "[" * 99999])
def test_a_file_that_is_not_a_profile_is_refused(
    config: Path, tmp_path: Path, content: str
) -> None:
    """A wrong file causes an error message and stores no profile."""
    file = tmp_path / "wrong.json"
    file.write_text(content)
    result = llmd(config, "profile", "set", "new", "--file", str(file))
    assert result.exit_code == 1
    assert result.stderr.startswith("llmd: cannot set the profile: ")
    assert llmd(config, "profile", "show", "new").exit_code == 1


def test_a_missing_model_is_noted(config: Path) -> None:
    """A profile may name a model that is not there yet, which is noted."""
    result = llmd(config, "profile", "set", "default", "model=m.gguf")
    assert result.exit_code == 0
    assert "there is no m.gguf in" in result.stderr


def test_the_seeds_config_is_imported_as_it_is(config: Path, tmp_path: Path) -> None:
    """`profile import` stores every profile of the file and keeps the selection."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SEED))
    result = llmd(config, "profile", "import", str(file))
    assert result.exit_code == 0, result.stderr
    assert profile(config, "Vicuna-13b")["template"].endswith("GUIONISTA:")
    listed = json.loads(llmd(config, "profile", "list", "--json").stdout)
    assert [one["name"] for one in listed["profiles"]] == ["Other", "Vicuna-13b", "default"]
    assert listed["selected"] == "default"
    assert "selects Vicuna-13b" in result.stderr


def test_a_wrong_profile_in_a_file_imports_none(config: Path, tmp_path: Path) -> None:
    """`profile import` takes all or nothing."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SEED | {"Bad": {"top_k": -1}}))
    result = llmd(config, "profile", "import", str(file))
    assert result.exit_code == 1
    assert "config.json: Bad.top_k" in result.stderr
    assert llmd(config, "profile", "show", "Other").exit_code == 1


def test_the_selected_profile_cannot_be_deleted(config: Path) -> None:
    """`profile delete` refuses to delete the selected profile."""
    llmd(config, "profile", "set", "new", "top_k=1")
    assert llmd(config, "profile", "delete", "new").exit_code == 0
    result = llmd(config, "profile", "delete", "default")
    assert result.exit_code == 1
    assert "is selected" in result.stderr
    assert [
        line.split()[1] for line in llmd(config, "profile", "list").stdout.splitlines()[1:]
    ] == ["default"]


def test_show_cannot_control_the_terminal(config: Path) -> None:
    """Control characters in a field are printed as escapes, and line breaks are kept."""
    llmd(config, "profile", "set", "new", "system=one\ntwo\x1b[2J")
    output = llmd(config, "profile", "show", "new").stdout
    assert "system             one\n                   two\\u001b[2J\n" in output
