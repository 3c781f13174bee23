from __future__ import annotations

import ast
import random
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.auth import secret
from llmd.errors import Busy

AUTH = Path(secret.__file__).parent
FORM = re.compile("llmd_[0-9a-z]{12}_[0-9A-Za-z]{49}")
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@given(seed=st.integers())
def test_new_key_has_the_published_form_and_parses(seed: int) -> None:
    """Every new key has the form that scanners look for, and is parsed with its id."""
    key = secret.make(random.Random(seed))
    assert FORM.fullmatch(key.text)
    assert secret.parse(key.text) == secret.ParsedKey(kind="llmd", id=key.id, text=key.text)


def test_keys_differ() -> None:
    """No two keys share an id or a secret."""
    keys = [secret.make() for _ in range(50)]
    assert len({key.id for key in keys}) == len({key.text[18:] for key in keys}) == 50


@given(place=st.integers(0, 66), letter=st.sampled_from(ALPHABET))
def test_one_wrong_character_is_noticed(place: int, letter: str) -> None:
    """A typing error anywhere in a key is noticed without the store."""
    text = secret.make(random.Random(1)).text
    wrong = text[:place] + letter + text[place + 1 :]
    assert wrong == text or secret.parse(wrong) is None


@given(text=st.text(max_size=200))
def test_no_text_breaks_the_parser(text: str) -> None:
    """For any text, the parser returns a key or None."""
    key = secret.parse(text)
    assert key is None or key.text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "' OR 1=1--",
        "A" * 19,
        "A" * 21,
        "A" * 19 + "é",
        "A" * 20 + "\n",
        "\uff21" * 20,
        "A" * 1_048_576,
        secret.make(random.Random(1)).text + "\n",
        " " + secret.make(random.Random(1)).text,
        secret.make(random.Random(1)).text.upper(),
    ],
)
def test_other_text_is_not_a_key(text: str) -> None:
    """Text that differs from both forms of a key in any way is not a key."""
    assert secret.parse(text) is None


def test_seed_key_has_no_id() -> None:
    """Twenty letters and digits are a seed key, which is found by its digest."""
    text = "abcdefghij0123456789"
    assert secret.parse(text) == secret.ParsedKey(kind="seed", id=None, text=text)
    assert secret.digest("abc").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_secret_is_not_in_the_repr() -> None:
    """The repr of a key, as in a traceback or a log, shows only its id."""
    key = secret.make()
    assert key.text[18:] not in repr(key) + repr(secret.parse(key.text))


@pytest.mark.parametrize("parameters", ["large", "small", "cheapest"])
def test_hash_is_verified_only_by_its_key(parameters: str) -> None:
    """Each parameter set produces an Argon2id hash that only its own key matches."""
    hasher = secret.Hasher(parameters)
    right, wrong = secret.make().text, secret.make().text
    hashed = hasher.hash(right)
    assert hashed.startswith("$argon2id$")
    assert hasher.verify(hashed, right)
    assert not hasher.verify(hashed, wrong)
    assert not hasher.needs_rehash(hashed)


def test_hash_with_other_parameters_needs_renewal() -> None:
    """A hash made with another parameter set still verifies, but needs to be renewed."""
    hashed = secret.Hasher("cheapest").hash("x")
    assert secret.Hasher("small").needs_rehash(hashed)
    assert secret.Hasher("small").verify(hashed, "x")


def test_stored_text_that_is_not_a_hash_verifies_nothing() -> None:
    """A damaged hash refuses its key and raises no error."""
    assert not secret.Hasher("cheapest").verify("x", "x")


def test_failure_of_argon2_does_not_refuse_the_key() -> None:
    """If Argon2 itself fails, for lack of memory for example, the error is Busy."""
    with pytest.raises(Busy):
        secret.Hasher("cheapest").verify("$argon2id$v=19$m=8,t=1,p=1$x$x", "x")


def test_one_hash_runs_at_a_time() -> None:
    """A thread that waits too long for another one's hash gets Busy."""
    hasher = secret.Hasher("cheapest", wait_s=0.01)
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with hasher.exclusive():
            taken.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    try:
        with pytest.raises(Busy):
            hasher.verify(hasher.hash("x"), "x")
    finally:
        done.set()
        holder.join()
    assert hasher.verify(hasher.hash("x"), "x")


@pytest.mark.parametrize("module", ["secret.py", "gate.py"])
def test_key_material_is_compared_in_constant_time(module: str) -> None:
    """Modules that handle keys compare with hmac.compare_digest or Argon2, never == or in."""
    tree = ast.parse((AUTH / module).read_text())
    operators = {
        type(operator)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for operator in node.ops
    }
    assert operators.isdisjoint({ast.Eq, ast.NotEq, ast.In, ast.NotIn})
