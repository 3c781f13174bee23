"""The choice of the one variant of llama.cpp's CPU code that a checkout builds."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Excerpts of what CMake prints for llama.cpp.
REPORT = """\
-- x86 detected
-- Adding CPU backend variant ggml-cpu-x64:  \n\
-- Adding CPU backend variant ggml-cpu-sse42: -msse4.2 GGML_SSE42
-- Adding CPU backend variant ggml-cpu-haswell: -mfma;-mavx2 GGML_SSE42;GGML_F16C;GGML_FMA;\
GGML_BMI2;GGML_AVX;GGML_AVX2
-- Adding CPU backend variant ggml-cpu-alderlake: -mavxvnni GGML_SSE42;GGML_F16C;GGML_FMA;\
GGML_BMI2;GGML_AVX;GGML_AVX2;GGML_AVX_VNNI
-- Adding CPU backend variant ggml-cpu-icelake: -mavx512f GGML_SSE42;GGML_F16C;GGML_FMA;\
GGML_BMI2;GGML_AVX;GGML_AVX2;GGML_AVX512;GGML_AVX512_VBMI;GGML_AVX512_VNNI
-- Configuring done (2.8s)
"""
HASWELL = "fma f16c sse4_2 bmi2 avx avx2"
AVX512 = "avx512f avx512cd avx512vl avx512dq avx512bw"


def _best(flags: str, report: str = REPORT) -> str | None:
    script = runpy.run_path(str(ROOT / "packaging/dev/cpu_variant.py"))
    features = script["features"](f"processor\t: 0\nflags\t\t: fpu {flags} lm\nbugs\t\t:\n")
    variant: str | None = script["best"](report, features)
    return variant


@pytest.mark.parametrize(
    ("flags", "variant"),
    [
        ("", "x64"),
        ("sse4_2", "sse42"),
        ("sse4_2 avx", "sse42"),
        (HASWELL, "haswell"),
        (f"{HASWELL} avx_vnni", "alderlake"),
        (f"{HASWELL} {AVX512} avx512vbmi avx512_vnni", "icelake"),
        (f"{HASWELL} avx_vnni {AVX512} avx512vbmi avx512_vnni", "icelake"),
        (f"{HASWELL} {AVX512} avx512_vnni", "haswell"),
        (f"{HASWELL} avx512f avx512vbmi avx512_vnni", "haswell"),
    ],
)
def test_the_best_variant_that_a_processor_runs_is_built(flags: str, variant: str) -> None:
    """The variant has the highest score of those whose features the processor has."""
    assert _best(flags) == variant


def test_no_variant_is_chosen_if_one_has_an_unknown_feature() -> None:
    """Without the score of every variant, all of them are built."""
    newer = "-- Adding CPU backend variant ggml-cpu-future: -mnew GGML_AVX2;GGML_AVX99\n"
    assert _best(HASWELL, REPORT + newer) is None
    assert _best(HASWELL, "-- Configuring done (2.8s)\n") is None
