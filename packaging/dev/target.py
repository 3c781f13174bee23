"""Print the pins of a lock file that apply to one version of Python on Linux, with their hashes.

    target.py VERSION FILE [WITHOUT...]

pip evaluates the markers of a requirement for the Python that runs it, even if it downloads
packages for another version. So the markers are evaluated here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement


def main(version: str, file: str, *without: str) -> None:
    """Print the pins of `file` for Python `version`, except those of the packages `without`."""
    target = {
        "python_version": version,
        "python_full_version": f"{version}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
    }
    lines = [line for line in Path(file).read_text().splitlines() if not line.startswith("#")]
    for block in "\n".join(lines).replace("\\\n", " ").splitlines():
        words, *hashes = block.split("--hash=")
        if not words.strip() or words.lstrip().startswith("#"):
            continue
        wanted = Requirement(words)
        if wanted.name in without or (wanted.marker and not wanted.marker.evaluate(target)):
            continue
        parts = [f"{wanted.name}{wanted.specifier}", *(f"--hash={one.strip()}" for one in hashes)]
        print(" \\\n    ".join(parts))


if __name__ == "__main__":
    main(*sys.argv[1:])
