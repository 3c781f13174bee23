"""OpenAI's client for JavaScript, which is a program of its own."""

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
    """Provide the folder with the npm package, which is fetched once per machine."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (on Debian: apt-get install npm)")
    named = os.environ.get("LLMD_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = (Path(named) if named else Path(base, "llmd")) / "node" / f"openai-{VERSION}"
    if not folder.is_dir():
        _install(folder)
    return folder


def _install(folder: Path) -> None:
    """Fetch the package into a temporary folder, then rename it, so that it is whole or absent."""
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
            # Another process was faster.
            assert folder.is_dir()


def test_the_client_for_javascript_works(daemon: Daemon, package_folder: Path) -> None:
    """Models, chats, streams, a required call, a response, vectors and an error work."""
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
    printed = json.loads(done.stdout)
    assert {MODEL, "a.gguf"} <= set(printed["models"])
    assert printed["chat"]["message"]["role"] == "assistant"
    assert printed["chat"]["message"]["content"] == printed["streamed"] == printed["response"] != ""
    assert printed["usage"]["completion_tokens"] == NUM_TOKENS
    assert printed["call"]["name"] == "switch_lamp"
    assert isinstance(json.loads(printed["call"]["arguments"])["on"], bool)
    assert printed["finish"] == "tool_calls"
    one, other = printed["vectors"]
    assert one == other > 100
    assert printed["error"]["name"] == "NotFoundError"
    assert printed["error"]["code"] == "model_not_found"
    assert printed["error"]["requestID"]
