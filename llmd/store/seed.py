"""Import the seed: the data that a small Flask project kept in three JSON files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from llmd.errors import Conflict, ImportRefused, InvalidField
from llmd.store import keys, profiles, sessions, settings
from llmd.store.db import Database, is_storable
from llmd.store.keys import Key
from llmd.store.profiles import Profile, check_name, read_profile
from llmd.store.sessions import MAX_NAME_CHARS, NewTurn, session_id

CONFIG, KEYS, SESSIONS = "config.json", "api_keys.json", "sessions.json"
_KEY = re.compile(r"[A-Za-z0-9]{20}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_IGNORED = {"verbose", "f16_kv"}
_MASTER = "0"


class SeedSession(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation of the seed. Its id is a number."""

    id: str
    name: str
    turns: tuple[NewTurn, ...]


class Seed(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the files. `owner` is the id of the master key, or empty without sessions."""

    profiles: dict[str, Profile]
    selected: str | None
    keys: tuple[Key, ...]
    owner: str
    sessions: tuple[SeedSession, ...]
    read_at: int


class SeedCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How much was imported. Keys that already existed are not counted."""

    profiles: int
    keys: int
    sessions: int
    turns: int


def _refuse(file: str, *field_path: str, why: str) -> NoReturn:
    """Raise ImportRefused for a field. A field name that has the form of a key is left out."""
    shown = ".".join("(a name)" if _KEY.fullmatch(part) else part for part in field_path)
    text = f"{file}: {shown}: {why}" if shown else f"{file}: {why}"
    raise ImportRefused(text.encode("utf-8", "backslashreplace").decode()) from None


def _load(path: Path) -> dict[str, Any]:
    """Return a strict JSON object: no field occurs twice, no NaN, only UTF-8."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            names = [name for name, _ in pairs]
            repeated = next(name for name in names if names.count(name) > 1)
            _refuse(path.name, repeated, why="the field must occur only once")
        return fields

    def constant(text: str) -> NoReturn:
        _refuse(path.name, why=f"{text} is not JSON")

    try:
        # Some editors write a byte order mark.
        text = path.read_bytes().decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except OSError as error:
        _refuse(path.name, why=f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        _refuse(path.name, why=f"must be UTF-8, but byte {error.start} is not")
    except json.JSONDecodeError as error:
        _refuse(path.name, why=f"must be JSON: {error}")
    except (RecursionError, ValueError):
        _refuse(path.name, why="must be JSON without deep nesting or very long numbers")
    if not isinstance(value, dict):
        _refuse(path.name, why="must be a JSON object")
    return value


def read_profiles(path: Path) -> tuple[dict[str, Profile], str | None]:
    """Return the profiles of a `config.json`, and the name of the selected one.

    All fields of `Profile` are accepted besides those of the seed. Raise ImportRefused.
    """
    fields = _load(path)
    selected = fields.pop("SelectedModel", None)
    found = {name: _profile(path.name, name, value) for name, value in fields.items()}
    if selected is not None and (not isinstance(selected, str) or selected not in found):
        _refuse(path.name, "SelectedModel", why="must be the name of a profile in the file")
    return found, selected


def _profile(file: str, name: str, value: Any) -> Profile:
    try:
        check_name(name)
    except InvalidField as error:
        _refuse(file, name, why=error.message)
    if not isinstance(value, dict):
        _refuse(file, name, why="must be an object with the fields of a profile")
    fields = {field: given for field, given in value.items() if field not in _IGNORED}
    template = fields.get("template")
    if isinstance(template, str) and "{chat_history}" not in template:
        fields["template"] = template.replace("{history}", "{chat_history}")
    try:
        return read_profile(fields)
    except InvalidField as error:
        field_path = (name, error.param) if error.param else (name,)
        _refuse(file, *field_path, why=error.message)


def _read_keys(
    path: Path,
    hash_key: Callable[[str], str],
    new_id: Callable[[], str],
    digest: Callable[[str], str],
    now: int,
) -> dict[str, Key]:
    """Return the keys by number. No error message contains a value, which may be a key."""
    digests: dict[str, str] = {}
    found = {}
    for number, value in _load(path).items():
        if not _NUMBER.fullmatch(number):
            _refuse(path.name, "(a name)", why='must be a number, such as "0" for the master key')
        if not isinstance(value, str) or not _KEY.fullmatch(value):
            _refuse(path.name, number, why="must be a key of 20 letters and digits")
        fingerprint = digest(value)
        if fingerprint in digests:
            _refuse(path.name, number, why=f"must not be the same key as {digests[fingerprint]}")
        digests[fingerprint] = number
        found[number] = Key(
            id=new_id(),
            name=f"seed-{number}",
            role="admin" if number == _MASTER else "user",
            hash=hash_key(value),
            digest=fingerprint,
            created_at=now,
        )
    return found


def _read_sessions(path: Path, now: int) -> tuple[SeedSession, ...]:
    found = []
    fields = _load(path)
    active = fields.pop("Active", None)
    if active is not None and (isinstance(active, bool) or not isinstance(active, int | str)):
        _refuse(path.name, "Active", why="must be the number of a session")
    for number, value in fields.items():
        try:
            session_id(number)
        except InvalidField as error:
            _refuse(path.name, number, why=error.message)
        if not isinstance(value, dict) or set(value) != {"name", "history"}:
            _refuse(path.name, number, why="must be an object with only name and history")
        name, history = value["name"], value["history"]
        if not isinstance(name, str) or not is_storable(name):
            _refuse(path.name, f"{number}.name", why="must be text")
        if not isinstance(history, list):
            _refuse(path.name, f"{number}.history", why="must be a list of lines")
        turns = _turns(path.name, f"{number}.history", history, now)
        found.append(SeedSession(id=number, name=name[:MAX_NAME_CHARS], turns=turns))
    return tuple(found)


def _turns(file: str, field_path: str, history: list[Any], now: int) -> tuple[NewTurn, ...]:
    texts = []
    for index, line in enumerate(history):
        label = "AI:" if index % 2 else "Human:"
        if not isinstance(line, str) or not line.startswith(label):
            _refuse(file, f"{field_path}[{index}]", why=f"must be a line that begins with {label}")
        if not is_storable(line.replace("\x00", "")):
            _refuse(file, f"{field_path}[{index}]", why="must not hold half of a surrogate pair")
        texts.append(line.removeprefix(label).removeprefix(" "))
    if len(texts) % 2:
        last = f"{field_path}[{len(texts) - 1}]"
        _refuse(file, last, why="must be followed by a line that begins with AI:")
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return tuple(
        NewTurn(user=user, assistant=assistant, created_at=now) for user, assistant in pairs
    )


def read_seed(
    folder: Path,
    *,
    hash_key: Callable[[str], str],
    new_id: Callable[[], str],
    digest: Callable[[str], str],
    now: int,
) -> Seed:
    """Return the content of those of the three files that exist, or raise ImportRefused."""
    present = {name for name in (CONFIG, KEYS, SESSIONS) if (folder / name).exists()}
    if not present:
        raise ImportRefused(f"{folder} must contain {CONFIG}, {KEYS} or {SESSIONS}")
    found, selected = read_profiles(folder / CONFIG) if CONFIG in present else ({}, None)
    found_sessions = _read_sessions(folder / SESSIONS, now) if SESSIONS in present else ()
    by_number = _read_keys(folder / KEYS, hash_key, new_id, digest, now) if KEYS in present else {}
    if found_sessions and _MASTER not in by_number:
        _refuse(SESSIONS, why=f"needs {KEYS} with the key {_MASTER}, which owns the sessions")
    return Seed(
        profiles=found,
        selected=selected,
        keys=tuple(by_number.values()),
        owner=by_number[_MASTER].id if found_sessions else "",
        sessions=found_sessions,
        read_at=now,
    )


def import_seed(db: Database, seed: Seed, *, actor: str = "import-seed") -> SeedCounts:
    """Store the whole seed in one transaction.

    An existing key is left as it is. Raise ImportRefused, and store nothing, if a session exists.
    """
    num_keys = 0
    with db.write() as tx:
        for name, profile in seed.profiles.items():
            profiles.put(tx, name, profile, actor=actor, now=seed.read_at)
        if seed.selected is not None:
            model = seed.profiles[seed.selected].model or None
            chosen = settings.Selection(model=model, profile=seed.selected)
            settings.choose(tx, chosen, actor=actor, now=seed.read_at)
        owner = seed.owner
        for key in seed.keys:
            existing = keys.find_digest(tx, key.digest or "")
            if existing is None:
                keys.add(tx, key, actor=actor)
                num_keys += 1
            elif key.id == owner:
                owner = existing.id
        for session in seed.sessions:
            try:
                sessions.create(tx, owner, session.id, name=session.name, now=seed.read_at)
            except Conflict:
                why = "the master key already has a session with this id"
                _refuse(SESSIONS, session.id, why=why)
            for turn in session.turns:
                sessions.append(tx, owner, session.id, turn)
    return SeedCounts(
        profiles=len(seed.profiles),
        keys=num_keys,
        sessions=len(seed.sessions),
        turns=sum(len(session.turns) for session in seed.sessions),
    )
