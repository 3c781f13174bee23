"""The syntax in which a model writes tool calls and thoughts, learnt from its chat template."""

from llmd.worker.syntax.forms import (
    HERMES,
    SLOT,
    ArgumentForm,
    CallForm,
    Calls,
    Channels,
    Syntax,
    pieces_of,
)

__all__ = ["HERMES", "SLOT", "ArgumentForm", "CallForm", "Calls", "Channels", "Syntax", "pieces_of"]
