"""``/v1/completions``: continue a text, without a chat template."""

from __future__ import annotations

from typing import Annotated, Literal

import falcon
from msgspec import Meta, Struct

from llmd.api import body
from llmd.api.access import Access
from llmd.api.openai.idempotency import IDEMPOTENCY_KEY, AnyRun, IdempotentRuns
from llmd.api.openai.reply_parts import (
    DONE,
    FINGERPRINT,
    PROMPT_ERRORS,
    Finish,
    data_event,
    finish_of,
    outcome_of,
)
from llmd.api.openai.request_fields import (
    CONVERSATION_ID,
    GenerationFields,
    affinity_of,
    without_ignored,
)
from llmd.api.openai.text_inputs import Inputs, inputs_of
from llmd.api.reply import send
from llmd.api.route import Operation
from llmd.api.stream import Source, send_stream, take_whole
from llmd.chat.completions import Completions, Options
from llmd.chat.outcome import CallPiece, Piece, Usage
from llmd.engine.protocol import Reasoning, TokenLogprob
from llmd.errors import InvalidField

MAX_PROMPTS = 64
"""The most prompts that one request may have."""


class CompletionBody(GenerationFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One or more texts (or token lists) to continue."""

    prompt: Annotated[Inputs, Meta(examples=["Once upon a time"])]
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | bool | None = None

    @property
    def num_logprobs(self) -> int | None:
        """The number of most likely tokens to report; None: no log probabilities at all."""
        # 0 is equal to False, but requests the log probabilities of the chosen tokens.
        if self.logprobs is None or self.logprobs is False:
            return None
        return int(self.logprobs)

    def check(self) -> None:
        """Raise `InvalidField` if the body uses a feature that is not supported."""
        if self.suffix:
            raise InvalidField("a suffix is not supported: send the prompt alone", param="suffix")
        if self.best_of not in (None, 1):
            raise InvalidField("best_of must be 1", param="best_of")


class TextLogprobs(Struct, frozen=True, kw_only=True):
    """Log probabilities of a text's tokens. Each list has one entry per token."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(Struct, frozen=True, kw_only=True):
    """The continuation of one prompt, and why it ended."""

    text: str
    index: int
    finish_reason: Finish | None
    logprobs: TextLogprobs | None = None


class CompletionReply(Struct, frozen=True, kw_only=True):
    """The continuations of all prompts."""

    id: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    object: Literal["text_completion"] = "text_completion"
    system_fingerprint: str = FINGERPRINT


COMPLETION = {
    "POST": Operation(
        summary="Continue a text, without a chat template",
        access=Access.USER,
        body=CompletionBody,
        reply=CompletionReply,
        stream="Chunks as `data:` events, ended by `data: [DONE]`.",
        headers=(IDEMPOTENCY_KEY, CONVERSATION_ID),
        errors=PROMPT_ERRORS,
    )
}


class CompletionResource:
    """The resource that continues texts."""

    is_openai = True

    def __init__(self, completions: Completions, runs: IdempotentRuns) -> None:
        self._completions = completions
        self._runs = runs

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Send the continuation whole, or as a stream of chunks."""
        raw = body.read_raw(req)
        wanted = body.convert(without_ignored(body.parse(raw)), CompletionBody)
        wanted.check()
        prompts = inputs_of(wanted.prompt, "prompt", MAX_PROMPTS)
        if len(prompts) > 1 and wanted.stream:
            raise InvalidField("only one prompt can be streamed", param="prompt")
        num_logprobs = wanted.num_logprobs
        options = wanted.options(affinity_of(req, wanted.user), num_logprobs=num_logprobs)
        run = self._run(req, raw, prompts[0], options)
        echo = prompts[0] if wanted.echo and isinstance(prompts[0], str) else ""
        if wanted.stream:
            chunks = CompletionChunks(run, wanted, echo, with_logprobs=num_logprobs is not None)
            source: Source[Piece] = run
            send_stream(req, resp, source, chunks)
            return
        runs = [run]
        take_whole(req, run)
        for index, prompt in enumerate(prompts[1:], 1):
            runs.append(self._run(req, raw, prompt, options, part=index))
            take_whole(req, runs[-1])
        send(resp, _reply(wanted, prompts, runs, with_logprobs=num_logprobs is not None))

    def _run(
        self,
        req: falcon.Request,
        raw: bytes,
        prompt: str | list[int],
        options: Options,
        *,
        part: int = 0,
    ) -> AnyRun:
        return self._runs.start_or_join(
            req,
            raw,
            lambda owner, is_gone: self._completions.start(owner, prompt, options, is_gone),
            part=part,
        )


def _reply(
    wanted: CompletionBody,
    prompts: list[str | list[int]],
    runs: list[AnyRun],
    *,
    with_logprobs: bool,
) -> CompletionReply:
    choices: list[TextChoice] = []
    usages: list[Usage] = []
    for index, (prompt, run) in enumerate(zip(prompts, runs, strict=True)):
        outcome = outcome_of(run)
        echo = prompt if wanted.echo and isinstance(prompt, str) else ""
        choices.append(
            TextChoice(
                text=echo + outcome.text,
                index=index,
                finish_reason=finish_of(outcome.finish_reason),
                logprobs=_text_logprobs(outcome.logprobs, len(echo)) if with_logprobs else None,
            )
        )
        usages.append(outcome.usage)
    return CompletionReply(
        id=f"cmpl-{runs[0].id}",
        created=runs[0].created_at,
        model=wanted.model,
        choices=choices,
        usage=Usage.of(
            sum(usage.prompt_tokens for usage in usages),
            sum(usage.completion_tokens for usage in usages),
            sum(usage.prompt_tokens_details.cached_tokens for usage in usages),
        ),
    )


class CompletionChunks:
    """A continuation as chunks, with the finish reason and, on request, the usage."""

    def __init__(
        self, run: AnyRun, wanted: CompletionBody, echo: str, *, with_logprobs: bool
    ) -> None:
        self._run = run
        self._echo = echo
        self._offset = len(echo)
        self._with_logprobs = with_logprobs
        self._with_usage = wanted.includes_usage
        self._head = {
            "id": f"cmpl-{run.id}",
            "object": "text_completion",
            "created": run.created_at,
            "model": wanted.model,
            "system_fingerprint": FINGERPRINT,
        }

    def begin(self) -> bytes:
        """Return the prompt's chunk if the client asked for an echo, else no bytes."""
        return self._chunk(self._echo) if self._echo else b""

    def piece(self, piece: Piece) -> bytes:
        """Return the chunk of a piece. Reasoning and tool calls are left out."""
        if isinstance(piece, Reasoning | CallPiece):
            return b""
        logprobs = _text_logprobs(piece.logprobs, self._offset) if self._with_logprobs else None
        self._offset += len(piece.text)
        return self._chunk(piece.text, logprobs=logprobs)

    def end(self) -> bytes:
        """Return the finish reason's chunk, the usage if requested, and the end mark."""
        outcome = outcome_of(self._run)
        last = self._chunk("", finish_reason=finish_of(outcome.finish_reason))
        usage = data_event(self._head | {"choices": [], "usage": outcome.usage})
        return last + (usage if self._with_usage else b"") + DONE

    def error(self, body: dict[str, object]) -> bytes:
        """Return the event of an error."""
        return data_event(body)

    def _chunk(
        self,
        text: str,
        *,
        finish_reason: Finish | None = None,
        logprobs: TextLogprobs | None = None,
    ) -> bytes:
        choice = TextChoice(text=text, index=0, finish_reason=finish_reason, logprobs=logprobs)
        return data_event(self._head | {"choices": [choice]})


def _text_logprobs(logprobs: list[TokenLogprob], offset: int) -> TextLogprobs:
    tokens = [logprob.chosen.text.decode("utf-8", "replace") for logprob in logprobs]
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return TextLogprobs(
        tokens=tokens,
        token_logprobs=[logprob.chosen.logprob for logprob in logprobs],
        top_logprobs=[
            {top.text.decode("utf-8", "replace"): top.logprob for top in logprob.top}
            for logprob in logprobs
        ],
        text_offset=offsets,
    )
