"""The library: the GGUF files in the models folder and in packages."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from llmd.errors import (
    ConfigError,
    Conflict,
    InvalidField,
    ModelInvalid,
    StoreFull,
    StoreUnavailable,
    UnknownModel,
)
from llmd.models.gguf import GgufHeader, read_header
from llmd.models.kinds import Kind, check_embeds, check_generates, check_is_of_use

_SUFFIX = ".gguf"
_MAX_NAME_BYTES = 255
_CHUNK_BYTES = 4_194_304
_STALE_S = 86_400

# Called with the number of bytes copied and the total number.
Progress = Callable[[int, int], None]


class ModelFile(Struct, frozen=True, kw_only=True):
    """A file of the library. `modified_at` is in unix seconds."""

    name: str
    path: Path
    size_bytes: int
    modified_at: int


class Library:
    """Lists, checks, adds and removes the model files of a folder, and lists those of packages.

    A name from a client is only compared with the names in the folder: no path is made from it.
    Thread-safe.
    """

    def __init__(self, folder: Path, packaged: Path | None = None) -> None:
        """Read `folder` and `packaged`, where `folder` has precedence; write only `folder`."""
        self._folder = folder
        self._packaged = packaged
        self._headers: dict[str, tuple[tuple[int, ...], GgufHeader]] = {}

    def list(self) -> list[ModelFile]:
        """Return the GGUF files and links to them, by name. A folder that is missing has none.

        Raise ConfigError if a folder cannot be read.
        """
        return sorted(self._scan(), key=lambda file: file.name)

    def find(self, name: str) -> ModelFile:
        """Return the file with exactly this name, or raise UnknownModel."""
        for file in self._scan():
            if file.name == name:
                return file
        message = f"there is no model {name[:80]!r}: GET /models or `llmd model list` lists them"
        raise UnknownModel(message, param="model")

    def check(self, name: str) -> GgufHeader:
        """Return the header of a file, from a cache while the file is unchanged.

        Raise UnknownModel, or ModelInvalid with what is wrong.
        """
        path = self.find(name).path
        try:
            status = path.stat()
        except OSError as error:
            message = f"{name}: cannot be read: {error.strerror}"
            raise ModelInvalid(message, param="model") from error
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        known = self._headers.get(name)
        if known is not None and known[0] == identity:
            return known[1]
        header = read_header(path)
        self._headers[name] = (identity, header)
        return header

    def check_generates(self, name: str) -> GgufHeader:
        """Return the header of a model that generates text. Raise the errors of `check`."""
        header = self.check(name)
        check_generates(name, header.kind)
        return header

    def check_embeds(self, name: str) -> GgufHeader:
        """Return the header of a model that makes embeddings. Raise the errors of `check`."""
        header = self.check(name)
        check_embeds(name, header.kind)
        return header

    def kind(self, name: str) -> Kind | None:
        """Return the kind of a file, or None if it is unknown, not valid or cannot be read."""
        try:
            return self.check(name).kind
        except (UnknownModel, ModelInvalid, ConfigError):
            return None

    def first(self) -> str:
        """Return the name of the first model that generates text.

        If there is none, raise UnknownModel, or ModelInvalid with what is wrong with the first.
        """
        errors: list[ModelInvalid] = []
        for file in self.list():
            try:
                self.check_generates(file.name)
            except ModelInvalid as error:
                errors.append(error)
            else:
                return file.name
        if errors:
            raise errors[0]
        raise UnknownModel(
            "there is no GGUF file in the models folder: add one with 'llmd model add FILE'"
        )

    def add(
        self,
        file: Path,
        *,
        name: str | None = None,
        link: bool = False,
        progress: Progress | None = None,
    ) -> ModelFile:
        """Check `file`, then copy it or link to it in the folder as `name`, all or nothing.

        Raise ModelInvalid, also for a kind that llmd has no use for, InvalidField for a bad name,
        Conflict if the name is taken, StoreFull, or StoreUnavailable if the folder cannot be
        written.
        """
        header = read_header(file)
        check_is_of_use(file.name, header.kind)
        name = file.name if name is None else name
        if not _is_name(name):
            message = (
                f"{name[:80]!r} is not a model name: use a plain file name that ends in {_SUFFIX}"
            )
            raise InvalidField(message, param="name")
        target = self._folder / name
        with _disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            if target.exists() or target.is_symlink():
                message = (
                    f"there is already a model {name!r}: remove it first, or choose another name"
                )
                raise Conflict(message, param="name")
            if link:
                target.symlink_to(file.resolve())
            else:
                self._copy(file, target, header, progress)
            _sync(self._folder)
        return self.find(name)

    def remove(self, name: str) -> None:
        """Remove a file, or the link to it. A process that has it open can still read it.

        Raise UnknownModel, Conflict if it belongs to a package, or StoreUnavailable if the folder
        cannot be written.
        """
        path = self.find(name).path
        if path.parent != self._folder:
            message = f"{path} belongs to a package: remove the package ('dpkg -S {path}' names it)"
            raise Conflict(message)
        with _disk_errors(self._folder):
            path.unlink(missing_ok=True)
            _sync(self._folder)
        self._headers.pop(name, None)

    def _scan(self) -> Iterator[ModelFile]:
        own = list(_files(self._folder, "models.dir"))
        yield from own
        if self._packaged is not None:
            names = {file.name for file in own}
            packaged = _files(self._packaged, "models.packaged_dir")
            yield from (file for file in packaged if file.name not in names)

    def _copy(
        self, file: Path, target: Path, header: GgufHeader, progress: Progress | None
    ) -> None:
        self._remove_stale()
        free_bytes = os.statvfs(self._folder).f_bavail * os.statvfs(self._folder).f_frsize
        if header.size_bytes > free_bytes:
            message = (
                f"{self._folder} has {free_bytes} bytes free, but {header.size_bytes} are needed"
            )
            raise StoreFull(message)
        fd, part = tempfile.mkstemp(prefix=".", suffix=".part", dir=self._folder)
        try:
            with os.fdopen(fd, "wb") as copy, file.open("rb") as source:
                num_bytes = 0
                while chunk := source.read(_CHUNK_BYTES):
                    copy.write(chunk)
                    num_bytes += len(chunk)
                    if progress is not None:
                        progress(num_bytes, header.size_bytes)
                copy.flush()
                os.fchmod(copy.fileno(), 0o644)
                os.fsync(copy.fileno())
            is_same = num_bytes == header.size_bytes
            if not is_same or read_header(Path(part)).fingerprint != header.fingerprint:
                message = f"{file.name}: changed while it was copied: try again when it is complete"
                raise ModelInvalid(message, param="model")
            Path(part).rename(target)
        finally:
            Path(part).unlink(missing_ok=True)

    def _remove_stale(self) -> None:
        # Unfinished copies that a crash has left behind.
        for part in self._folder.glob(".*.part"):
            if time.time() - part.lstat().st_mtime > _STALE_S:
                part.unlink(missing_ok=True)


def _files(folder: Path, option: str) -> Iterator[ModelFile]:
    """Yield the model files of a folder, or raise ConfigError that names its option."""
    try:
        entries = _entries(folder)
    except OSError as error:
        message = f"{option}: {folder} cannot be read: {error.strerror}"
        raise ConfigError(message) from error
    for entry in entries:
        if not _is_name(entry.name):
            continue
        try:
            status = entry.stat()
        except OSError:
            # A broken link, or a file that was just removed.
            continue
        if stat.S_ISREG(status.st_mode):
            yield ModelFile(
                name=entry.name,
                path=folder / entry.name,
                size_bytes=status.st_size,
                modified_at=int(status.st_mtime),
            )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder; none if it does not exist. Raise OSError."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _is_name(name: str) -> bool:
    # isprintable is false for control characters, lone surrogates and bidirectional marks.
    return (
        name.endswith(_SUFFIX)
        and name.isprintable()
        and "/" not in name
        and not name.startswith((".", "-"))
        and len(name.encode()) <= _MAX_NAME_BYTES
    )


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn OSError into StoreFull or StoreUnavailable."""
    try:
        yield
    except OSError as error:
        message = f"{folder} cannot be written: {error.strerror}"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreFull(message) from error
        raise StoreUnavailable(message) from error


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
