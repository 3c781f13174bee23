"""`llmd status`: show what the daemon is doing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from llmd.cli.command import EXIT_FAILED, Command
from llmd.cli.connection import connect, connection_options
from llmd.cli.installation import Installation, pass_installation
from llmd.cli.output import duration, json_option, note, print_fields, print_json

# A healthy daemon answers at once, whatever its model is doing.
_TIMEOUT_S = 10.0


@click.command("status", cls=Command, cannot="show the status")
@json_option
@connection_options
@pass_installation
@click.pass_context
def status(
    ctx: click.Context,
    installation: Installation,
    *,
    url: str | None,
    key_file: Path | None,
    as_json: bool,
) -> None:
    """Show the model, the load and the uptime of the daemon.

    The exit status is 1 if the daemon cannot be reached or is not ready to answer. Without a key,
    only the health is shown.
    """
    client = connect(installation, url, key_file, timeout_s=_TIMEOUT_S, needs_key=False)
    health = client.request("GET", "/health")
    is_ready = health.status == 200
    shown = client.call("GET", "/status") if client.has_key else {}
    if not shown:
        names = ("status", "model", "reason")
        shown = {name: health.body[name] for name in names if name in health.body}
    if as_json:
        print_json({"url": client.url, "ready": is_ready, **shown})
    else:
        print_fields([("address", client.url), *_lines(shown)])
    if not is_ready:
        why = health.body.get("reason") or health.body.get("message") or f"HTTP {health.status}"
        note(f"llmd: not ready: {why}")
        ctx.exit(EXIT_FAILED)


def _lines(shown: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a label and a text for each value that is known."""
    known = {name: value for name, value in shown.items() if value is not None}
    state = str(known.get("state") or known.get("status") or "unknown")
    if state == "loading" and known.get("progress"):
        state += f" ({known['progress']:.0%})"
    lines = [("state", state)]
    lines += [(name, str(known[name])) for name in ("model", "profile") if name in known]
    if "sequences" in known:
        lines.append(("sequences", _load(known["sequences"], "running", "max", "waiting")))
    if "streams" in known:
        lines.append(("streams", _load(known["streams"], "active", "max", "queued")))
    if "tokens_per_s" in known:
        lines.append(("speed", f"{known['tokens_per_s']:.1f} tokens/s"))
    if "context_tokens" in known:
        lines.append(("context", f"{known['context_tokens']} tokens"))
    if "threads" in known:
        variant = f", {known['cpu_variant']}" if known.get("cpu_variant") else ""
        lines.append(("threads", f"{known['threads']}{variant}"))
    if "sessions" in known:
        lines.append(("sessions", str(known["sessions"])))
    if known.get("restarts"):
        lines.append(("restarts", f"{known['restarts']} of the process that runs the model"))
    if "uptime_s" in known:
        lines.append(("uptime", duration(known["uptime_s"])))
    if "version" in known:
        lines.append(("version", str(known["version"])))
    return lines


def _load(counts: dict[str, Any], active: str, limit: str, waiting: str) -> str:
    of_limit = f" of {counts[limit]}" if counts.get(limit) is not None else ""
    return f"{counts.get(active, 0)}{of_limit} {active}, {counts.get(waiting, 0)} {waiting}"
