"""Call short functions of llama.cpp without releasing the GIL."""

from __future__ import annotations

import ctypes
from typing import Any


class ShortCalls:
    """Functions that return within microseconds, bound so that they keep the GIL.

    ctypes.CDLL releases the GIL in each call, and a waiting thread may then hold it for a whole
    switch interval. That is 5 ms for each token, while the call itself takes 0.1 ms.
    """

    def __init__(self, lib: Any) -> None:
        library = ctypes.PyDLL(lib._lib._name)

        def bind(name: str) -> Any:
            bound = getattr(library, name)
            bound.argtypes = getattr(lib, name).argtypes
            bound.restype = getattr(lib, name).restype
            return bound

        self.get_logits_ith = bind("llama_get_logits_ith")
        # Return the address as a number, to avoid making a pointer object for each token.
        self.get_logits_ith.restype = ctypes.c_void_p
        self.memory_seq_rm = bind("llama_memory_seq_rm")
        self.sampler_apply = bind("llama_sampler_apply")
        self.sampler_free = bind("llama_sampler_free")
        self.sampler_sample = bind("llama_sampler_sample")
        self.vocab_is_eog = bind("llama_vocab_is_eog")
