"""Compare a worker whose memory has pages of 2 MB, as llmd's have, with one of 4 KB pages.

    python -m bench.pages MODEL FOLDER [ROUNDS]

FOLDER has the llama.cpp libraries.
"""

from __future__ import annotations

import sys

from bench.variants import compare
from llmd.engine.process import HUGE_PAGES


def main(model: str, folder: str, rounds: str = "10") -> None:
    """Measure in turns, and print the comparison."""
    small = HUGE_PAGES.replace("=1", "=0")
    ways = {
        "2 MB": (folder, {"GLIBC_TUNABLES": HUGE_PAGES}),
        "4 KB": (folder, {"GLIBC_TUNABLES": small}),
    }
    compare(model, ways, int(rounds))


if __name__ == "__main__":
    main(*sys.argv[1:])
