"""The choice among the variants of llama.cpp's CPU code."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmd.errors import EngineFailed
from llmd.worker.cpu import variants

NEHALEM = {0: 1 << 0 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23, 2: 1 << 0}
"""Register ECX of each CPUID leaf, with the bits of x86-64-v2."""


class Libc:
    """A C library on a processor whose CPUID leaves have these values of ECX."""

    def __init__(self, ecx: dict[int, int]) -> None:
        leaf_type = ctypes.c_uint32 * 8
        leaves = {leaf: leaf_type(0, 0, value, 0) for leaf, value in ecx.items()}

        class Function:
            restype: Any

            def __call__(self, leaf: int) -> Any:
                return ctypes.pointer(leaves[leaf])

        setattr(self, "__x86_get_cpuid_feature_leaf", Function())


class Ggml:
    """A fake libggml that records the libraries that it loads."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def ggml_backend_load(self, path: bytes) -> None:
        self.loaded.append(Path(path.decode()).name)

    def ggml_backend_load_all_from_path(self, path: bytes) -> None:
        built_in = Path(path.decode(), "libggml-cpu.so")
        self.loaded += [built_in.name] if built_in.exists() else []

    def ggml_backend_reg_count(self) -> int:
        return len(self.loaded)


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that makes a folder of variants with the given scores."""

    class Variant:
        def __init__(self, path: str) -> None:
            self._score = int(Path(path).read_text())

        def ggml_backend_score(self) -> int:
            return self._score

    monkeypatch.setattr(ctypes, "CDLL", Variant)

    def make(**scores: int) -> Path:
        for name, score in scores.items():
            (tmp_path / f"libggml-cpu-{name}.so").write_text(str(score))
        return tmp_path

    return make


def test_the_variant_with_the_highest_score_is_loaded(scored: Callable[..., Path]) -> None:
    """Only the variant with the highest score is loaded, and its name is returned."""
    ggml = Ggml()
    assert variants.load_best(ggml, scored(x64=1, haswell=64, zen4=0), []) == "haswell"
    assert ggml.loaded == ["libggml-cpu-haswell.so"]


def test_a_variant_that_crashed_here_is_not_loaded_again(scored: Callable[..., Path]) -> None:
    """The next best variant is loaded instead of one that crashed."""
    ggml = Ggml()
    assert variants.load_best(ggml, scored(x64=1, haswell=64, zen4=500), ["zen4"]) == "haswell"


def test_a_processor_for_which_there_is_no_code_is_refused(scored: Callable[..., Path]) -> None:
    """A processor is refused if all variants score 0 or have crashed."""
    with pytest.raises(EngineFailed, match="no CPU code"):
        variants.load_best(Ggml(), scored(haswell=0), [])
    with pytest.raises(EngineFailed, match="no CPU code"):
        variants.load_best(Ggml(), scored(haswell=64), ["haswell"])


def test_libraries_built_for_this_machine_alone_have_one_code(tmp_path: Path) -> None:
    """Libraries without variants load their built-in code."""
    (tmp_path / "libggml-cpu.so").touch()
    assert variants.load_best(Ggml(), tmp_path, []) == "built-in"


def test_a_processor_of_2008_is_new_enough() -> None:
    """A processor with x86-64-v2, which numpy needs, is accepted."""
    variants.check_processor(Libc(NEHALEM))


@pytest.mark.parametrize(
    ("leaf", "bit", "name"), [(0, 20, "SSE4.2"), (0, 23, "POPCNT"), (2, 0, "LAHF")]
)
def test_an_older_processor_is_refused_with_a_message(leaf: int, bit: int, name: str) -> None:
    """The error names the missing feature and the level that llmd needs."""
    older = NEHALEM | {leaf: NEHALEM[leaf] & ~(1 << bit)}
    with pytest.raises(EngineFailed, match=f"has no {name}; llmd needs x86-64-v2"):
        variants.check_processor(Libc(older))


def test_the_processor_is_not_checked_with_another_c_library() -> None:
    """The processor is not checked with a C library that lacks glibc's function."""
    variants.check_processor(object())
