"""The GGUF files on disk."""

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

_SUFFIX = ".gguf"
_MAX_NAME_BYTES = 255
_CHUNK_BYTES = 4_194_304
_STALE_S = 86_400

# Called with bytes done and bytes in all.
Progress = Callable[[int, int], None]


class ModelFile(Struct, frozen=True, kw_only=True):
    """Describe a file of the library. `modified_at` is in unix seconds."""

    name: str
    path: Path
    size_bytes: int
    modified_at: int


class Library:
    """List, check, add and remove the model files of a folder, and list those of packages.

    A name from outside is only ever compared with the names that the folder has; no path is made
    from it. Thread-safe.
    """

    def __init__(self, folder: Path, packaged: Path | None = None) -> None:
        """Read `packaged` too, but never write it. A file of the same name in `folder` counts."""
        self._folder = folder
        self._packaged = packaged
        self._headers: dict[str, tuple[tuple[int, ...], GgufHeader]] = {}

    def list(self) -> list[ModelFile]:
        """Return the GGUF files, and links to such, by name. A folder not yet made has none.

        Raises ConfigError when the folder cannot be read.
        """
        return sorted(self._scan(), key=lambda file: file.name)

    def find(self, name: str) -> ModelFile:
        """Return the file that is called exactly `name`. Raises UnknownModel."""
        for file in self._scan():
            if file.name == name:
                return file
        message = f"there is no model {name[:80]!r}: GET /models or `llmd model list` name them"
        raise UnknownModel(message, param="model")

    def check(self, name: str) -> GgufHeader:
        """Return the header of a file, from memory while the file is the same.

        Raises UnknownModel, or ModelInvalid with what is wrong.
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

    def add(
        self,
        file: Path,
        *,
        name: str | None = None,
        link: bool = False,
        progress: Progress | None = None,
    ) -> ModelFile:
        """Check `file`, then copy it (or link to it) into the folder as `name`, all or nothing.

        Raises ModelInvalid, InvalidField for a name that will not do, Conflict when it is taken,
        StoreFull and StoreUnavailable when the folder cannot take the file.
        """
        header = read_header(file)
        name = file.name if name is None else name
        if not _is_name(name):
            message = (
                f"{name[:80]!r} is no model name: give a plain file name that ends in {_SUFFIX}"
            )
            raise InvalidField(message, param="name")
        target = self._folder / name
        with _disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            if target.exists() or target.is_symlink():
                message = (
                    f"there is a model {name!r} already: remove it first, or give another name"
                )
                raise Conflict(message, param="name")
            if link:
                target.symlink_to(file.resolve())
            else:
                self._copy(file, target, header, progress)
            _sync(self._folder)
        return self.find(name)

    def remove(self, name: str) -> None:
        """Remove a file, or the link to it. Who has it open keeps it until then.

        Raises UnknownModel, Conflict when it belongs to a package, or StoreUnavailable when the
        folder cannot be written.
        """
        path = self.find(name).path
        if path.parent != self._folder:
            message = f"{path} belongs to a package: remove that ('dpkg -S {path}' names it)"
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
            message = f"{self._folder} has {free_bytes} bytes left, {header.size_bytes} are needed"
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
                message = f"{file.name}: changed while it was copied: try again when it is whole"
                raise ModelInvalid(message, param="model")
            Path(part).rename(target)
        finally:
            Path(part).unlink(missing_ok=True)

    def _remove_stale(self) -> None:
        # What a copy left behind that was cut off by a crash.
        for part in self._folder.glob(".*.part"):
            if time.time() - part.lstat().st_mtime > _STALE_S:
                part.unlink(missing_ok=True)


def _files(folder: Path, option: str) -> Iterator[ModelFile]:
    """Yield the model files of a folder. Raises ConfigError that names its option."""
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
            # A link to nowhere, or a file that has just gone.
            continue
        if stat.S_ISREG(status.st_mode):
            yield ModelFile(
                name=entry.name,
                path=folder / entry.name,
                size_bytes=status.st_size,
                modified_at=int(status.st_mtime),
            )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, none if it is not there. Raises OSError."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _is_name(name: str) -> bool:
    # isprintable is false for controls, half surrogates, and marks that turn text around.
    return (
        name.endswith(_SUFFIX)
        and name.isprintable()
        and "/" not in name
        and not name.startswith((".", "-"))
        and len(name.encode()) <= _MAX_NAME_BYTES
    )


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Raise StoreFull or StoreUnavailable for an OSError."""
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
