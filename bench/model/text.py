"""Text to token ids as a model's own tokenizer does it: what it puts in front by itself, and nothing else added.

A BOS changes what is thought of every token after it, so a model that was trained with one is asked with it. What a
tokenizer would put at the end (an EOS, a ``[SEP]``) is left out: nothing stands behind it, so no other token's
probability depends on it, and a record that was cut does not end there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from bench.core.errors import UsageError

Ids = list[int]


def start_of(tokenizer: Any, bos: Literal["auto", "always", "never"], where: object) -> tuple[int, ...]:
    """The ids in front of every record. ``auto``: what the tokenizer's post-processor puts there by itself, if
    anything; ``always``: that, or else its BOS; ``never``: none.

    Raises UsageError naming ``where``, the tokenizer's directory, for ``always`` where there is no BOS.
    """
    if bos == "never":
        return ()
    own = _by_itself(tokenizer)
    if own or bos == "auto":
        return own
    if tokenizer.bos_token_id is None:
        raise UsageError(
            f"model.bos=always needs a tokenizer that has a BOS token, and that of {where} has none; "
            "set model.bos=auto or never."
        )
    return (int(tokenizer.bos_token_id),)


def _by_itself(tokenizer: Any) -> tuple[int, ...]:
    """What stands before a text's own tokens where the tokenizer adds what it likes."""
    whole, plain = (
        list(tokenizer("a", add_special_tokens=added, verbose=False)["input_ids"]) for added in (True, False)
    )
    places = range(len(whole) - len(plain) + 1)
    before = next((at for at in places if whole[at : at + len(plain)] == plain), 0)
    return tuple(int(i) for i in whole[:before])


def tokenise(tokenizer: Any, texts: Sequence[str]) -> list[Ids]:
    """The ids of each text. One that spells a control token (``<s>``, ``<|endoftext|>``) is text like any other: it
    never gives that token's id. Raises UsageError where the tokenizer's vocabulary leaves no other way to write it."""
    rows = _plain(tokenizer, texts)
    control = _control(tokenizer)
    return [
        ids if control.keys().isdisjoint(ids) else _apart(tokenizer, text, control)
        for text, ids in zip(texts, rows, strict=True)
    ]


def _plain(tokenizer: Any, texts: Sequence[str]) -> list[Ids]:
    given = tokenizer(
        list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
    )
    return [list(ids) for ids in given["input_ids"]]


def _control(tokenizer: Any) -> dict[int, str]:
    """Control tokens by id. The one for unknown words is none, unless it has another office too."""
    unknown = getattr(tokenizer, "unk_token", None)
    offices = [getattr(tokenizer, f"{name}_token", None) for name in ("bos", "eos", "pad", "sep", "cls", "mask")]
    known = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    return {int(i): str(word) for word, i in known if word != unknown or word in offices[:2]}


def _apart(tokenizer: Any, text: str, control: dict[int, str]) -> Ids:
    """For a vocabulary that takes a control token's spelling for a word: the same text, cut within that word."""
    words = sorted((re.escape(word) for word in control.values() if len(word) > 1), key=len, reverse=True)
    ids: Ids = []
    begin = 0
    for found in re.finditer("|".join(words), text) if words else ():
        middle = found.start() + 1
        ids += _plain(tokenizer, [text[begin:middle]])[0]
        begin = middle
    ids += _plain(tokenizer, [text[begin:]])[0] if begin < len(text) else []
    if not control.keys().isdisjoint(ids):
        word = next(control[i] for i in ids if i in control)
        raise UsageError(
            f"The text {text[:60]!r} can't be written in this model's vocabulary without its control token {word!r}; "
            "leave that word out of the records."
        )
    return ids
