"""The installed package on processors that this machine has not: emulated ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deb.machine import Machine

MODEL = "/usr/share/llmd/models/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def script(installed: Machine) -> str:
    """Put the script that runs a worker on an emulated processor into the machine."""
    installed.run("systemctl stop llmd")
    text = Path(__file__).with_name("emulated.py").read_text()
    installed.run(f"cat > /opt/emulated.py <<'SCRIPT'\n{text}\nSCRIPT")
    return "/usr/lib/llmd/bin/python3 -I /opt/emulated.py"


@pytest.mark.parametrize(("cpu", "variant"), [("Nehalem", "sse42"), ("Haswell", "haswell")])
def test_an_old_processor_generates_by_the_code_for_it(
    installed: Machine, script: str, cpu: str, variant: str
) -> None:
    """No instruction is used that it does not have."""
    said = installed.run(f"{script} {cpu} {MODEL} 2>/dev/null", timeout_s=600)
    assert said == f"CPU code {variant}\ntoken  Paris\n"


def test_a_processor_too_old_is_refused_in_words(installed: Machine, script: str) -> None:
    """By name of what is missing, before any library dies of it."""
    said = installed.run(f"{script} Conroe {MODEL} 2>/dev/null", timeout_s=600)
    assert said.startswith("refused: this processor is too old: it has no ")
    assert "SSE4.2" in said
