"""Which values a field may have, for the error that tells of one that it may not."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import inspect

_STEPS = re.compile(r"\.([^.\[]+)|\[([^\]]*)\]")


def choices(type_: object, path: str) -> list[str]:
    """Return the words that the field at a path such as ``$.a.b[0]`` may be; none for others."""
    kinds = [inspect.type_info(type_)]
    for step in _STEPS.finditer(path):
        kinds = [inner for kind in kinds for inner in _inner(kind, step[1])]
    values = [
        value
        for kind in _flat(kinds)
        if isinstance(kind, inspect.LiteralType)
        for value in kind.values
    ]
    return [str(value) for value in values]


def _flat(kinds: list[inspect.Type]) -> Iterator[inspect.Type]:
    for kind in kinds:
        if isinstance(kind, inspect.UnionType):
            yield from _flat(list(kind.types))
        elif isinstance(kind, inspect.Metadata):
            yield from _flat([kind.type])
        else:
            yield kind


def _inner(kind: inspect.Type, name: str | None) -> Iterator[inspect.Type]:
    """Yield what a field of this name may be, or an item when there is no name."""
    for outer in _flat([kind]):
        if isinstance(outer, inspect.StructType):
            yield from (field.type for field in outer.fields if field.encode_name == name)
        elif isinstance(outer, inspect.DictType):
            yield outer.value_type
        elif isinstance(outer, inspect.ListType) and name is None:
            yield outer.item_type
