"""Choose the variant of llama.cpp's CPU code that suits this processor best."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from llmd.errors import EngineFailed

_PREFIX = "libggml-cpu-"

_NEEDED = {
    # (glibc's index of the leaf, register 0 to 3, bit): x86-64-v2 of the x86-64 psABI, 3.1.1.
    "SSE3": (0, 2, 0),
    "SSSE3": (0, 2, 9),
    "CMPXCHG16B": (0, 2, 13),
    "SSE4.1": (0, 2, 19),
    "SSE4.2": (0, 2, 20),
    "POPCNT": (0, 2, 23),
    "LAHF": (2, 2, 0),
}


def check_processor(libc: Any = None) -> None:
    """Raise `EngineFailed` on a processor older than x86-64-v2.

    numpy, which the bindings of llama.cpp import, would crash there without an error message.
    """
    try:
        leaf_of = (libc or ctypes.CDLL(None)).__x86_get_cpuid_feature_leaf
    except AttributeError:
        # This is another kind of processor or C library, for which the packages are not built.
        return
    leaf_of.restype = ctypes.POINTER(ctypes.c_uint32 * 8)
    missing = [
        name
        for name, (leaf, register, bit) in _NEEDED.items()
        if not leaf_of(leaf).contents[register] >> bit & 1
    ]
    if missing:
        raise EngineFailed(
            f"this processor is too old: it has no {', '.join(missing)}; llmd needs x86-64-v2 "
            "(Intel since 2008, AMD since 2011), and a virtual machine must expose it to its guest"
        )


def load_best(ggml: Any, folder: Path, avoid: list[str]) -> str:
    """Load the best variant into `ggml`, except those to `avoid`, and return its name.

    The name is "built-in" for libraries built without variants. Raise `EngineFailed` if no variant
    runs here.
    """
    files = [
        file
        for file in sorted(folder.glob(f"{_PREFIX}*.so"))
        if file.stem.removeprefix(_PREFIX) not in avoid
    ]
    # The score is 0 if the processor lacks an instruction. It does not tell whether the operating
    # system allows them all.
    scores = {file: int(ctypes.CDLL(str(file)).ggml_backend_score()) for file in files}
    best = max(scores, key=scores.__getitem__, default=None)
    if best is not None and scores[best]:
        ggml.ggml_backend_load(str(best).encode())
    elif not avoid:
        ggml.ggml_backend_load_all_from_path(str(folder).encode())
    if ggml.ggml_backend_reg_count() == 0:
        raise EngineFailed(f"no CPU code in {folder} runs on this processor")
    return "built-in" if best is None else best.stem.removeprefix(_PREFIX)
