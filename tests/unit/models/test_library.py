from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.errors import (
    ConfigError,
    Conflict,
    InvalidField,
    ModelInvalid,
    StoreFull,
    StoreUnavailable,
    UnknownModel,
)
from llmd.models.kinds import Kind
from llmd.models.library import Library
from tests.support.gguf_file import (
    ADAPTER,
    ENCODER,
    ENCODER_DECODER,
    PROJECTOR,
    RERANKER,
    build,
    having,
    string,
)

GOOD = build()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two models, and with entries that are not models."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("b.gguf", "a.gguf", ".hidden.gguf", "-rf.gguf", "note.txt", "A.GGUF", "x\ny.gguf"):
        (folder / name).write_bytes(GOOD)
    (folder / "folder.gguf").mkdir()
    (folder / "broken.gguf").symlink_to(tmp_path / "nowhere.gguf")
    (folder / "folder-link.gguf").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.gguf")
    (folder / os.fsdecode(b"\xff.gguf")).write_bytes(GOOD)
    (tmp_path / "secret.gguf").write_bytes(GOOD)
    return folder


def test_list_has_the_model_files_by_name(folder: Path) -> None:
    """Regular files that end in .gguf are listed in order, and no other entries."""
    (folder / "link to c.gguf").symlink_to(folder.parent / "secret.gguf")
    files = Library(folder).list()
    assert [file.name for file in files] == ["a.gguf", "b.gguf", "link to c.gguf"]
    assert {file.size_bytes for file in files} == {len(GOOD)}
    assert files[0].modified_at == int((folder / "a.gguf").stat().st_mtime)
    assert files[0].path == folder / "a.gguf"


def test_missing_folder_has_no_models(tmp_path: Path) -> None:
    """A missing folder is an empty library, but a file in its place is a wrong setting."""
    assert Library(tmp_path / "none").list() == []
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"models\.dir"):
        Library(tmp_path / "file").list()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a",
        "A.gguf",
        "a.gguf ",
        " a.gguf",
        "a.gguf\0",
        "a.gguf\n",
        "a.gguf/",
        "./a.gguf",
        "../secret.gguf",
        "../models/a.gguf",
        "..\\secret.gguf",
        "%2e%2e/secret.gguf",
        "folder.gguf/../a.gguf",
        "/etc/passwd",
        "~/a.gguf",
        "*.gguf",
        "\uff41.gguf",
        "a\u200b.gguf",
        "а.gguf",
        os.fsdecode(b"\xff.gguf"),
        "x\ny.gguf",
        ".hidden.gguf",
        "-rf.gguf",
        "folder.gguf",
        "pipe.gguf",
        "broken.gguf",
        "a" * 100_000 + ".gguf",
    ],
)
def test_name_that_is_not_listed_is_unknown(name: str, folder: Path) -> None:
    """Path traversal, NUL, look-alikes and other names that are not listed are unknown."""
    library = Library(folder)
    for look in (library.find, library.check, library.remove):
        with pytest.raises(UnknownModel) as caught:
            look(name)
        assert len(caught.value.message) < 600
    assert (folder.parent / "secret.gguf").exists()


@settings(max_examples=100)
@given(name=st.text())
def test_any_text_is_unknown_in_an_empty_library(name: str) -> None:
    """No name is made into a path."""
    with pytest.raises(UnknownModel):
        Library(Path("/nonexistent")).find(name)


def test_header_is_read_anew_when_the_file_changes(folder: Path) -> None:
    """A header is cached until another file takes the name."""
    library = Library(folder)
    first = library.check("a.gguf")
    assert library.check("a.gguf") is first
    other = folder / "new"
    other.write_bytes(build(having(string("general.name", "Mini"))))
    other.rename(folder / "a.gguf")
    assert library.check("a.gguf").name == "Mini"


def test_broken_model_is_named(folder: Path) -> None:
    """The error for a truncated file names the file and the cause."""
    (folder / "a.gguf").write_bytes(GOOD[:-5])
    with pytest.raises(ModelInvalid, match=r"^a\.gguf: truncated"):
        Library(folder).check("a.gguf")


def test_added_file_is_a_copy(tmp_path: Path) -> None:
    """A file is copied completely, readable for all, with progress and without leftovers."""
    source = tmp_path / "m.gguf"
    source.write_bytes(GOOD)
    steps: list[tuple[int, int]] = []
    library = Library(tmp_path / "models")
    added = library.add(source, progress=lambda done, total: steps.append((done, total)))
    assert added.path.read_bytes() == GOOD
    assert added.path.stat().st_mode & 0o777 == 0o644
    assert steps == [(len(GOOD), len(GOOD))]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["m.gguf"]
    source.unlink()
    assert library.check("m.gguf").name == "Tiny"


def test_linked_file_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link works from any working directory, and removing it keeps the file."""
    (tmp_path / "m.gguf").write_bytes(GOOD)
    monkeypatch.chdir(tmp_path)
    library = Library(tmp_path / "models")
    added = library.add(Path("m.gguf"), name="n.gguf", link=True)
    assert added.path.readlink() == tmp_path / "m.gguf"
    assert library.check("n.gguf").name == "Tiny"
    library.remove("n.gguf")
    assert library.list() == []
    assert (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize("link", [True, False])
def test_broken_file_is_not_added(link: bool, tmp_path: Path) -> None:
    """A file that cannot be loaded is not added to the library."""
    (tmp_path / "m.gguf").write_bytes(GOOD[:-1])
    library = Library(tmp_path / "models")
    with pytest.raises(ModelInvalid, match="truncated"):
        library.add(tmp_path / "m.gguf", link=link)
    assert library.list() == []


@pytest.mark.parametrize("link", [True, False])
def test_model_is_not_overwritten(link: bool, folder: Path) -> None:
    """A taken name, even of a broken link, is a conflict and changes nothing."""
    source = folder.parent / "secret.gguf"
    source.write_bytes(build(having(string("general.name", "Mini"))))
    library = Library(folder)
    for name in ("a.gguf", "broken.gguf"):
        with pytest.raises(Conflict):
            library.add(source, name=name, link=link)
    assert library.check("a.gguf").name == "Tiny"


@pytest.mark.parametrize(
    "name", ["", "m", "../m.gguf", "/m.gguf", ".m.gguf", "-m.gguf", "m\n.gguf", "x" * 251 + ".gguf"]
)
def test_name_that_could_not_be_listed_is_refused(name: str, tmp_path: Path) -> None:
    """A file cannot be added under a name that would not be listed."""
    (tmp_path / "m.gguf").write_bytes(GOOD)
    with pytest.raises(InvalidField):
        Library(tmp_path / "models").add(tmp_path / "m.gguf", name=name)
    assert not (tmp_path / "models").exists()


def test_interrupted_copy_leaves_nothing(tmp_path: Path) -> None:
    """An interrupted copy leaves neither a part nor a model."""
    (tmp_path / "m.gguf").write_bytes(GOOD)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    library = Library(tmp_path / "models")
    with pytest.raises(KeyboardInterrupt):
        library.add(tmp_path / "m.gguf", progress=interrupt)
    assert list((tmp_path / "models").iterdir()) == []


def test_unfinished_copy_is_removed_a_day_later(tmp_path: Path) -> None:
    """The next copy removes the part that a crash left a day ago, but not a recent one."""
    (tmp_path / "m.gguf").write_bytes(GOOD)
    (tmp_path / "models").mkdir()
    old, young = tmp_path / "models/.old.part", tmp_path / "models/.young.part"
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    Library(tmp_path / "models").add(tmp_path / "m.gguf")
    assert not old.exists()
    assert young.exists()


def test_file_that_changes_while_it_is_copied_is_refused(tmp_path: Path) -> None:
    """A model that is still being written is not added."""
    source = tmp_path / "m.gguf"
    source.write_bytes(GOOD)

    def overwrite(done: int, total: int) -> None:
        with source.open("ab") as file:
            file.write(b"more")

    def once(done: int, total: int) -> None:
        if done == total:
            overwrite(done, total)

    library = Library(tmp_path / "models")
    with pytest.raises(ModelInvalid, match="changed while it was copied"):
        library.add(source, progress=once)
    assert library.list() == []


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, StoreFull), (errno.EROFS, StoreUnavailable)]
)
def test_error_of_the_disk_names_the_folder(
    number: int, expected: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full or read-only disk raises an error that names the folder, and leaves no part."""
    (tmp_path / "m.gguf").write_bytes(GOOD)

    def fail(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(expected, match="models"):
        Library(tmp_path / "models").add(tmp_path / "m.gguf")
    assert list((tmp_path / "models").iterdir()) == []


def test_removed_model_stays_readable_while_open(folder: Path) -> None:
    """A removed file leaves the list, but a reader that has it open can still read it."""
    library = Library(folder)
    with (folder / "a.gguf").open("rb") as opened:
        library.remove("a.gguf")
        assert opened.read() == GOOD
    assert [file.name for file in library.list()] == ["b.gguf"]


def test_files_of_packages_are_listed_and_never_removed(folder: Path, tmp_path: Path) -> None:
    """Files of packages are never removed. A file of the same name in the folder has precedence."""
    packaged = tmp_path / "packaged"
    packaged.mkdir()
    for name in ("a.gguf", "shipped.gguf"):
        (packaged / name).write_bytes(GOOD)
    library = Library(folder, packaged)
    assert [file.name for file in library.list()] == ["a.gguf", "b.gguf", "shipped.gguf"]
    assert library.find("a.gguf").path == folder / "a.gguf"
    library.check("shipped.gguf")
    with pytest.raises(Conflict, match="belongs to a package"):
        library.remove("shipped.gguf")
    library.remove("a.gguf")
    assert library.find("a.gguf").path == packaged / "a.gguf"
    assert Library(folder, tmp_path / "none").list()


@pytest.mark.parametrize("content", [ENCODER_DECODER, RERANKER, PROJECTOR, ADAPTER])
def test_what_is_of_no_use_is_not_added(content: bytes, tmp_path: Path) -> None:
    """A kind that llmd can do nothing with is refused by its name, and nothing is copied."""
    (tmp_path / "x.gguf").write_bytes(content)
    library = Library(tmp_path / "models")
    with pytest.raises(ModelInvalid, match=r"x\.gguf is an? "):
        library.add(tmp_path / "x.gguf")
    assert library.list() == []


def test_an_encoder_is_added_for_embeddings(tmp_path: Path) -> None:
    """An encoder is added, and passes only the check of what makes embeddings."""
    (tmp_path / "x.gguf").write_bytes(ENCODER)
    library = Library(tmp_path / "models")
    assert library.add(tmp_path / "x.gguf").name == "x.gguf"
    assert library.kind("x.gguf") is Kind.ENCODER
    assert library.check_embeds("x.gguf").architecture == "bert"
    with pytest.raises(ModelInvalid, match="is an encoder"):
        library.check_generates("x.gguf")


def test_the_first_model_is_one_that_generates(tmp_path: Path) -> None:
    """Files of other kinds and broken ones are passed over, unless there are no others."""
    library = Library(tmp_path)
    with pytest.raises(UnknownModel, match="llmd model add"):
        library.first()
    (tmp_path / "a.gguf").write_bytes(ENCODER)
    (tmp_path / "b.gguf").write_bytes(b"GGUF and no more")
    with pytest.raises(ModelInvalid, match=r"a\.gguf is an encoder"):
        library.first()
    (tmp_path / "c.gguf").write_bytes(GOOD)
    assert library.first() == "c.gguf"


def test_the_kind_of_what_is_no_model_is_unknown(tmp_path: Path) -> None:
    """Broken and missing files have no kind."""
    (tmp_path / "b.gguf").write_bytes(b"GGUF and no more")
    assert [Library(tmp_path).kind(name) for name in ("b.gguf", "gone.gguf", "")] == [None] * 3
