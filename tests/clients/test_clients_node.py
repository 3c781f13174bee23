"""OpenAI's client for JavaScript, which is another program than the one for Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.clients.sdk import MODEL, NUM_TOKENS, base_url
from tests.e2e.daemon import Daemon, environment
from tests.e2e.waiting import PATIENCE_S

pytestmark = pytest.mark.e2e

VERSION = "7.57.0"
SCRIPT = Path(__file__).with_name("node_openai.mjs")


@pytest.fixture(scope="module")
def package_folder() -> Path:
    """Return the folder with the npm package, fetched once a machine."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} on this machine (on Debian: apt-get install npm)")
    named = os.environ.get("LLMD_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = (Path(named) if named else Path(base, "llmd")) / "node" / f"openai-{VERSION}"
    if not folder.is_dir():
        _install(folder)
    return folder


def _install(folder: Path) -> None:
    """Fetch the package beside its place and put it there as a whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as work:
        made = Path(work) / "made"
        made.mkdir()
        flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-update-notifier"]
        done = subprocess.run(
            ["npm", "install", "--prefix", str(made), *flags, f"openai@{VERSION}"],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"npm could not fetch openai@{VERSION}: {done.stderr}"
        try:
            made.rename(folder)
        except OSError:
            # Another process was quicker.
            assert folder.is_dir()


def test_the_client_for_javascript_does_all_it_is_used_for(
    daemon: Daemon, package_folder: Path
) -> None:
    """Models, a chat whole and streamed, a forced call, a response, vectors and an error."""
    done = subprocess.run(
        ["node", str(SCRIPT)],
        check=False,
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE_S,
        env=environment()
        | {
            "LLMD_NODE_MODULES": str(package_folder),
            "LLMD_BASE_URL": base_url(daemon),
            "LLMD_KEY": daemon.key,
            "LLMD_MODEL": MODEL,
        },
    )
    assert done.returncode == 0, done
    told = json.loads(done.stdout)
    assert {MODEL, "a.gguf"} <= set(told["models"])
    assert told["chat"]["message"]["role"] == "assistant"
    assert told["chat"]["message"]["content"] == told["streamed"] == told["response"] != ""
    assert told["usage"]["completion_tokens"] == NUM_TOKENS
    assert told["call"]["name"] == "switch_lamp"
    assert isinstance(json.loads(told["call"]["arguments"])["on"], bool)
    assert told["finish"] == "tool_calls"
    one, other = told["vectors"]
    assert one == other > 100
    assert told["error"]["name"] == "NotFoundError"
    assert told["error"]["code"] == "model_not_found"
    assert told["error"]["requestID"]
