"""`llmd ask`: send a question to the daemon and print the answer as it is generated."""

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

# While a prompt waits or is read, a stream carries a ping every ten seconds. A response that is not
# streamed is silent until the answer is complete.
_STREAM_TIMEOUT_S = 60.0
_COMPLETE_TIMEOUT_S = 3600.0


@click.command("ask", cls=Command, cannot="ask", short_help="Ask a question and print the answer.")
@click.argument("question")
@click.option("--session", "session_id", metavar="ID", help="Continue this conversation.")
@click.option("--profile", metavar="NAME", help="Use this profile; default: the selected one.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), metavar="N", help="Limit the length of the answer."
)
@click.option(
    "--temperature",
    type=float,
    metavar="T",
    help="Set the randomness; 0 takes the likeliest token.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    help="Fix the random seed, to repeat an answer.",
)
@click.option("--no-stream", is_flag=True, help="Print the answer once it is complete.")
@click.option(
    "-v", "--verbose", is_flag=True, help="Print token counts and times on standard error."
)
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
    """Ask QUESTION and print the answer; "-" reads the question from standard input.

    Without --session, nothing is stored, and the model does not see earlier questions.
    """
    prompt = _prompt(question)
    timeout_s = _COMPLETE_TIMEOUT_S if no_stream else _STREAM_TIMEOUT_S
    client = connect(installation, url, key_file, timeout_s=timeout_s)
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
    _note_statistics(answer, verbose=verbose)


def _prompt(question: str) -> str:
    prompt = sys.stdin.read() if question == "-" else question
    if not prompt.strip():
        raise click.UsageError("the question is empty")
    return prompt.removesuffix("\n") if question == "-" else prompt


def _stream(client: Client, body: dict[str, Any], *, is_quiet: bool) -> dict[str, Any]:
    """Print tokens as they arrive, unless `is_quiet`, and return the data of the last event."""
    from llmd.cli.client import ApiError

    events = client.events("/answer", body | {"stream": True})
    has_begun = False
    answer: dict[str, Any] | None = None
    try:
        with spinner("reading the prompt"):
            event = next(events, None)
        while event is not None:
            if event.name == "done":
                # Read on to the end: the daemon would take a close here for a lost client.
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
        raise ApiError("the daemon stopped before the answer was complete: ask again")
    return answer


def _write(text: str) -> None:
    # A pipe gets the text as the model wrote it. A terminal must not be controlled by it.
    sys.stdout.write(visible(text) if on_terminal() else text)
    sys.stdout.flush()


def _note_statistics(answer: dict[str, Any], *, verbose: bool) -> None:
    """Print on standard error whether the answer was cut off and, if `verbose`, its numbers."""
    usage = answer.get("usage") or {}
    num_tokens = usage.get("completion_tokens", 0)
    if answer.get("finish_reason") == "length" and sys.stderr.isatty():
        note(f"(cut off after {num_tokens} tokens: --max-tokens allows a longer answer)")
    if not verbose:
        return
    timings = answer.get("timings") or {}
    decode_s = timings.get("decode_ms", 0) / 1000
    rate = f" ({num_tokens / decode_s:.1f} tokens/s)" if decode_s > 0 else ""
    num_cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    note(
        f"model {answer.get('model')}, profile {answer.get('profile')}; "
        f"prompt {usage.get('prompt_tokens', 0)} tokens, {num_cached} of them cached, "
        f"read in {timings.get('prefill_ms', 0) / 1000:.2f} s "
        f"after {timings.get('queue_ms', 0) / 1000:.2f} s in the queue; "
        f"answer {num_tokens} tokens in {decode_s:.2f} s{rate}; "
        f"seed {answer.get('seed')}, finish reason {answer.get('finish_reason')}"
    )
