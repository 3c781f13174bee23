"""`llmd ask`: put a question to the daemon, and print the answer while it is made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmd.cli.command import Command
from llmd.cli.connection import connect, connection_options
from llmd.cli.installation import Installation, pass_installation
from llmd.cli.output import json_option, note, on_terminal, print_json, spinner, visible

if TYPE_CHECKING:
    from llmd.cli.client import Client

# While a prompt waits or is read the daemon gives a sign of life each ten seconds in a stream,
# and none when it is to come whole.
_STREAM_SILENCE_S = 60.0
_WHOLE_ANSWER_S = 3600.0


@click.command("ask", cls=Command, cannot="ask", short_help="Ask a question and print the answer.")
@click.argument("question")
@click.option("--session", "session_id", metavar="ID", help="Go on with this conversation.")
@click.option("--profile", metavar="NAME", help="Ask by this profile; default: the selected one.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Answer no longer.")
@click.option("--temperature", type=float, metavar="T", help="0 always takes the likeliest token.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Repeat an answer.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is whole.")
@click.option("-v", "--verbose", is_flag=True, help="Tell tokens and times on standard error.")
@json_option
@connection_options
@pass_installation
def ask(
    installation: Installation,
    /,
    *,
    question: str,
    url: str | None,
    key_file: Path | None,
    no_stream: bool,
    verbose: bool,
    as_json: bool,
    **fields: Any,
) -> None:
    """Ask QUESTION ("-": what comes on standard input) and print the answer.

    Without --session nothing is stored, and the daemon knows nothing of the question before.
    """
    prompt = _prompt(question)
    silence_s = _WHOLE_ANSWER_S if no_stream else _STREAM_SILENCE_S
    client = connect(installation, url, key_file, timeout_s=silence_s)
    body = {"prompt": prompt} | {name: given for name, given in fields.items() if given is not None}
    if no_stream:
        with spinner("reading the prompt"):
            answer = client.call("POST", "/answer", body)
        if not as_json:
            _write(str(answer.get("result", "")) + "\n")
    else:
        answer = _stream(client, body, is_quiet=as_json)
    if as_json:
        print_json(answer)
    _remark(answer, verbose=verbose)


def _prompt(question: str) -> str:
    prompt = sys.stdin.read() if question == "-" else question
    if not prompt.strip():
        raise click.UsageError("the question is empty")
    return prompt.removesuffix("\n") if question == "-" else prompt


def _stream(client: Client, body: dict[str, Any], *, is_quiet: bool) -> dict[str, Any]:
    """Print tokens as they come, unless `is_quiet`, and return the last event's data."""
    from llmd.cli.client import ApiError

    events = client.events("/answer", body | {"stream": True})
    has_begun = False
    answer: dict[str, Any] | None = None
    try:
        with spinner("reading the prompt"):
            event = next(events, None)
        while event is not None:
            if event.name == "done":
                # Not yet the end: who hangs up here looks to the daemon like one who has gone.
                answer = event.data
            elif event.name == "token" and not is_quiet:
                has_begun = True
                _write(str(event.data.get("text", "")))
            event = next(events, None)
    finally:
        events.close()  # type: ignore[attr-defined]  # a generator: this ends the request
        if has_begun:
            _write("\n")
    if answer is None:
        raise ApiError("the daemon ended before the answer did: ask again")
    return answer


def _write(text: str) -> None:
    # A pipe gets what the model said; a terminal must not be steered by it.
    sys.stdout.write(visible(text) if on_terminal() else text)
    sys.stdout.flush()


def _remark(answer: dict[str, Any], *, verbose: bool) -> None:
    """Tell beside the answer what is to be known of it."""
    usage = answer.get("usage") or {}
    num_tokens = usage.get("completion_tokens", 0)
    if answer.get("finish_reason") == "length" and sys.stderr.isatty():
        note(f"(cut after {num_tokens} tokens: --max-tokens allows more)")
    if not verbose:
        return
    timings = answer.get("timings") or {}
    decode_s = timings.get("decode_ms", 0) / 1000
    rate = f" ({num_tokens / decode_s:.1f} tokens/s)" if decode_s > 0 else ""
    num_cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    note(
        f"model {answer.get('model')}, profile {answer.get('profile')}; "
        f"prompt {usage.get('prompt_tokens', 0)} tokens, {num_cached} of them known, "
        f"read in {timings.get('prefill_ms', 0) / 1000:.2f} s "
        f"after {timings.get('queue_ms', 0) / 1000:.2f} s in the queue; "
        f"answer {num_tokens} tokens in {decode_s:.2f} s{rate}; "
        f"seed {answer.get('seed')}, ended by {answer.get('finish_reason')}"
    )
