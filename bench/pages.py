"""Compare memory pages of 2 MB, which llmd's workers use, with pages of 4 KB.

    python -m bench.pages MODEL FOLDER [ROUNDS]

FOLDER contains the llama.cpp libraries.
"""

from __future__ import annotations

import sys

from bench.variants import compare
from llmd.engine.process import HUGE_PAGES


def main(model: str, folder: str, rounds: str = "10") -> None:
    """Measure in turns, and print the comparison."""
    small = HUGE_PAGES.replace("=1", "=0")
    setups = {
        "2 MB": (folder, {"GLIBC_TUNABLES": HUGE_PAGES}),
        "4 KB": (folder, {"GLIBC_TUNABLES": small}),
    }
    compare(model, setups, int(rounds))


if __name__ == "__main__":
    main(*sys.argv[1:])
