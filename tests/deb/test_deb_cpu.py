"""The installed package on emulated processors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deb.machine import Machine

MODEL = "/usr/share/llmd/models/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def script(installed: Machine) -> str:
    """Copy emulated.py into the machine, and return the command that runs it."""
    installed.run("systemctl stop llmd")
    text = Path(__file__).with_name("emulated.py").read_text()
    installed.run(f"cat > /opt/emulated.py <<'SCRIPT'\n{text}\nSCRIPT")
    return "/usr/lib/llmd/bin/python3 -I /opt/emulated.py"


@pytest.mark.parametrize(("cpu", "variant"), [("Nehalem", "sse42"), ("Haswell", "haswell")])
def test_an_old_processor_runs_the_cpu_code_for_it(
    installed: Machine, script: str, cpu: str, variant: str
) -> None:
    """A worker selects the CPU code for an old processor, and generates with it."""
    output = installed.run(f"{script} {cpu} {MODEL} 2>/dev/null", timeout_s=600)
    assert output == f"CPU code {variant}\ntoken  Paris\n"


def test_a_processor_that_is_too_old_is_refused(installed: Machine, script: str) -> None:
    """The error names the missing instructions, before a library uses them."""
    output = installed.run(f"{script} Conroe {MODEL} 2>/dev/null", timeout_s=600)
    assert output.startswith("refused: this processor is too old: it has no ")
    assert "SSE4.2" in output
