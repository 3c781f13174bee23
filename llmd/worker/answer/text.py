"""Turn the bytes of tokens into text of whole characters, up to the first stop string."""

from __future__ import annotations

import codecs


class TextStream:
    """Decode UTF-8 and end at the first stop string, both across tokens.

    The first stop string is the one that is complete first, so the end does not depend on how the
    text is split into tokens. Text that could still become a stop string is held back.
    """

    def __init__(self, stop: list[str]) -> None:
        self._stop = [text for text in stop if text]
        self._rest = b""
        """First bytes of a character that is not complete yet."""
        self._held = ""
        self.stopped = False

    def push(self, piece: bytes) -> str:
        """Add the bytes of a token; return the text that is certain now."""
        return self._release(self._decode(piece, final=False), final=False)

    def finish(self) -> str:
        """Return the text that was held back, at the end of the answer."""
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
