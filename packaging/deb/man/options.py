"""Print the manual page llmd.toml(5), generated from the commented file with every option.

options.py FILE VERSION
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_HEAD = """.TH LLMD.TOML 5 "" "llmd {version}" "File formats"
.SH NAME
llmd.toml \\- configuration of the LLM server
.SH SYNOPSIS
.I /etc/llmd/llmd.toml
.br
.I /etc/llmd/conf.d/*.toml
.br
.I /etc/llmd/credentials/*.toml
.SH DESCRIPTION
The files are TOML. They are read in this order, those of a folder in the order of their names; a
later value replaces an earlier one. Every option may be left out. The files in
.I credentials
may be readable only for root: systemd gives the daemon copies of them.
.PP
.B llmd config check
names the file and the option of each mistake, and
.B llmd config show
prints the values in use. After a change run
.BR "systemctl reload llmd" ;
the log names the options that need a restart. Options that end in
.B _s
and are in seconds; sizes end in
.BR _bytes .
"""

_FOOT = """.SH SEE ALSO
.BR llmd (8)
"""


def render(text: str, version: str) -> str:
    """Return the page for a file in which each option is commented out below its description."""
    lines = [_HEAD.format(version=_plain(version)).rstrip("\n")]
    words: list[str] = []
    _, _, options = text.partition("\n\n")
    for line in options.splitlines():
        if section := re.fullmatch(r"\[(\w+)\]", line):
            lines.append(f".SH SECTION [{section[1]}]")
        elif option := re.fullmatch(r"#(\w+) = (.+)", line):
            lines += [".TP", rf".B {option[1]}", *words, rf"Default: \fB{_plain(option[2])}\fR."]
            words = []
        elif line.startswith("# "):
            words.append(_plain(line[2:]))
    return "\n".join(lines) + "\n" + _FOOT


def _plain(text: str) -> str:
    """Return `text` with everything escaped that has a meaning in roff."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


if __name__ == "__main__":
    print(render(Path(sys.argv[1]).read_text(encoding="utf-8"), sys.argv[2]), end="")
