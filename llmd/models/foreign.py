"""What a file is that is not a GGUF file."""

from __future__ import annotations

_BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer: fetch the file with git lfs pull",
    b"PK\x03\x04": "a zip archive, perhaps a PyTorch checkpoint: convert it to GGUF",
    b"\x1f\x8b": "compressed by gzip: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it",
    b"\xfd7zXZ": "compressed by xz: unpack it",
    b"\x80\x02": "a Python pickle, perhaps a PyTorch checkpoint: convert it to GGUF",
    # The magic numbers ggml, ggmf, ggjt and ggla, stored little-endian.
    b"lmgg": "an old ggml model: get it as GGUF",
    b"fmgg": "an old ggmf model: get it as GGUF",
    b"tjgg": "an old ggjt model: get it as GGUF",
    b"algg": "an old ggla adapter: get a model as GGUF",
    b"FUGG": "a GGUF file in the wrong byte order",
    b"{": "JSON",
}


def describe(beginning: bytes) -> str:
    """Say what a file looks like by its first bytes, and what to do about it."""
    if not beginning:
        return "it is empty"
    for magic, words in _BEGINNINGS.items():
        if beginning.startswith(magic):
            return f"it looks like {words}"
    if beginning[8:10] == b'{"':
        return "it looks like a safetensors file: convert it to GGUF"
    if beginning.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it looks like a web page: the download went wrong"
    if not beginning.strip(b"\0"):
        return "it begins with zeros: the download went wrong"
    return f"it begins with {beginning[:4]!r}"
