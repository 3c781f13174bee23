"""Find the variant of llama.cpp's CPU code that suits this processor best.

    cpu_variant.py features     print the features that decide, as one word; nothing if unknown
    cpu_variant.py best FILE    print the name of the best variant among those that CMake reported
                                in FILE while it configured llama.cpp; nothing if unknown

The choice is the one that the worker makes at start-up among the libraries of all variants, by
the score that llama.cpp's ggml/src/ggml-cpu/arch/x86/cpu-feats.cpp computes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_FLAGS = {
    "FMA": {"fma"},
    "F16C": {"f16c"},
    "SSE42": {"sse4_2"},
    "BMI2": {"bmi2"},
    "AVX": {"avx"},
    "AVX2": {"avx2"},
    "AVX_VNNI": {"avx_vnni"},
    "AVX512": {"avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"},
    "AVX512_VBMI": {"avx512vbmi"},
    "AVX512_BF16": {"avx512_bf16"},
    "AVX512_VNNI": {"avx512_vnni"},
    "AMX_TILE": {"amx_tile"},
    "AMX_INT8": {"amx_int8"},
}
"""The flags of /proc/cpuinfo that each of llama.cpp's features needs.

The order is that of llama.cpp's score: a feature outweighs all those before it.
"""

_REPORT = re.compile(r"Adding CPU backend variant ggml-cpu-(\w+):(.*)")


def features(cpuinfo: str) -> list[str]:
    """Return the features of `_FLAGS` that a processor with this /proc/cpuinfo has."""
    line = re.search(r"^flags\s*:(.*)", cpuinfo, re.MULTILINE)
    flags = set(line[1].split()) if line else set()
    return [name for name, needed in _FLAGS.items() if needed <= flags]


def best(report: str, available: list[str]) -> str | None:
    """Return the variant with the highest score that needs only `available` features.

    Return None if there is none, or if a variant needs a feature that `_FLAGS` lacks: its score
    is not known then.
    """
    weights = {name: 1 << position for position, name in enumerate(_FLAGS)}
    scores = {}
    for variant, definitions in _REPORT.findall(report):
        needed = set(re.findall(r"GGML_(\w+)", definitions))
        if not needed <= weights.keys():
            return None
        if needed <= set(available):
            scores[variant] = sum(weights[name] for name in needed)
    return max(sorted(scores), key=scores.__getitem__, default=None)


def main(command: str, *files: str) -> None:
    """Print what `command` asks for."""
    available = features(Path("/proc/cpuinfo").read_text())
    if command == "features":
        print("-".join(available).lower())
    elif available:
        print(best(Path(*files).read_text(), available) or "")


if __name__ == "__main__":
    main(*sys.argv[1:])
