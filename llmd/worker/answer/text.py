"""Turn the bytes of tokens into text that can be shown, whole characters and no stop strings."""

from __future__ import annotations

import codecs


class TextStream:
    """Decode UTF-8 across tokens and end at the first stop string, also across tokens.

    The first is the one that is complete first: so the end does not depend on how the text is
    cut into tokens. Text that could still become a stop string is held back until it is decided.
    """

    def __init__(self, stop: list[str]) -> None:
        self._stop = [text for text in stop if text]
        self._rest = b""
        """The beginning of a character, whose end is still to come."""
        self._held = ""
        self.stopped = False

    def push(self, piece: bytes) -> str:
        """Take the bytes of a token; return the text that is certain now."""
        return self._release(self._decode(piece, final=False), final=False)

    def finish(self) -> str:
        """Return what was held back, when no further token comes."""
        return self._release(self._decode(b"", final=True), final=True)

    def _decode(self, piece: bytes, *, final: bool) -> str:
        data = self._rest + piece
        text, num_read = codecs.utf_8_decode(data, "replace", final)
        self._rest = data[num_read:]
        return text

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
        """Return the length of the longest end of the held text that begins a stop string."""
        return max(
            (
                size
                for stop in self._stop
                for size in range(1, min(len(stop), len(self._held) + 1))
                if self._held.endswith(stop[:size])
            ),
            default=0,
        )
