"""Turn the bytes of tokens into text of whole characters, and end text at a stop string."""

from __future__ import annotations

import codecs


class TextDecoder:
    """Decode UTF-8 whose characters may be split between tokens."""

    def __init__(self) -> None:
        self._rest = b""
        """First bytes of a character that is not complete yet."""

    def push(self, piece: bytes) -> str:
        """Add the bytes of a token; return the characters that are complete."""
        return self._decode(piece, final=False)

    def finish(self) -> str:
        """Return what stands for an incomplete character at the end of the answer."""
        return self._decode(b"", final=True)

    def _decode(self, piece: bytes, *, final: bool) -> str:
        data = self._rest + piece
        text, num_read = codecs.utf_8_decode(data, "replace", final)
        self._rest = data[num_read:]
        return text


class StopFilter:
    """End a text at the first stop string, which may be split between its pieces.

    The first stop string is the one that is complete first, so the end does not depend on how the
    text is split. Text that could still become a stop string is held back.
    """

    def __init__(self, stop: list[str]) -> None:
        self._stop = [text for text in stop if text]
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Add text; return the text that is certain now."""
        return self._release(text, final=False)

    def finish(self) -> str:
        """Return the text that was held back, because no more text follows it directly."""
        return self._release("", final=True)

    def _release(self, text: str, *, final: bool) -> str:
        if not self._stop:
            return text
        if self.stopped:
            return ""
        self._held += text
        found = [(at + len(stop), at) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            _, at = min(found)
            certain, self._held = self._held[:at], ""
            return certain
        keep = 0 if final else self._num_undecided()
        cut = len(self._held) - keep
        certain, self._held = self._held[:cut], self._held[cut:]
        return certain

    def _num_undecided(self) -> int:
        """Return the length of the longest suffix of the held text that begins a stop string."""
        return max(
            (
                size
                for stop in self._stop
                for size in range(1, min(len(stop), len(self._held) + 1))
                if self._held.endswith(stop[:size])
            ),
            default=0,
        )
