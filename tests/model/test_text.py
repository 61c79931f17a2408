"""What stands in front of a record, and that text never turns into a control token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import UsageError
from bench.model.lora import LoraModel
from bench.model.text import start_of, tokenise
from bench.spec.run import LoraSpec, ModelSpec
from tests.model_checks import TINY, byte_level


@pytest.mark.parametrize(
    ("template", "start"),
    [(None, ()), ("<bos> $A", (2,)), ("<bos> $A <eos>", (2,)), ("<bos> <sop> $A", (2, 3)), ("$A <eos>", ())],
)
def test_the_start_is_what_the_tokenizer_puts_there_by_itself(template: str | None, start: tuple[int, ...]) -> None:
    made = byte_level(template)
    assert start_of(made, "auto", "here") == start
    assert start_of(made, "never", "here") == ()
    assert start_of(made, "always", "here") == (start or (2,))


def test_always_needs_a_bos() -> None:
    with pytest.raises(
        UsageError, match=r"^model\.bos=always needs a tokenizer that has a BOS token, and that of here"
    ):
        start_of(byte_level(None, bos=None), "always", "here")
    assert start_of(byte_level(None, bos=None), "auto", "here") == ()


def test_a_model_without_a_bos_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")  # no weights are needed to know
    byte_level(None, bos=None).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"model\.bos=always"):
        LoraModel.load(tmp_path, ModelSpec(name=str(tmp_path), bos="always"), LoraSpec(), device="cpu")


def test_todays_models_get_what_they_always_got() -> None:
    model = LoraModel.load(TINY, ModelSpec(name="tiny"), LoraSpec(), device="cpu")
    texts = ["The patient was seen.", " café\n\t 12.5mg", "x"]
    assert model.start == ()
    assert [model.tokenizer(text)["input_ids"] for text in texts] == tokenise(model.tokenizer, texts)


SPELT = "end <eos> of <bos>text<pad><sop> <|endoftext|> </s> <s>"


def test_text_gives_no_control_token_of_a_fast_tokenizer() -> None:
    made = byte_level("<bos> $A")
    (ids,) = tokenise(made, [SPELT])
    assert not set(ids) & {0, 1, 2}
    assert made.decode(ids) == SPELT
    tiny = plain_tokenizer(TINY)
    (ids,) = tokenise(tiny, [SPELT])
    assert not set(ids) & set(tiny.all_special_ids)
    assert tiny.decode(ids) == SPELT


def test_text_gives_no_control_token_of_a_slow_tokenizer() -> None:
    from transformers import ByT5Tokenizer

    made = ByT5Tokenizer()  # written in Python; it adds </s> by itself, at the end
    assert start_of(made, "auto", "here") == ()
    (ids,) = tokenise(made, ["a</s>b<pad>"])
    assert ids == [ord(letter) + 3 for letter in "a</s>b<pad>"]


def test_a_vocabulary_that_takes_the_spelling_for_a_word_is_got_around() -> None:
    """A unigram model, as those made from SentencePiece: its pieces hold the control tokens like any other."""
    made = unigram(["<", "s", ">", "a"])
    given = made(["a<s>a"], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert 1 in given[0], "the case is none: the tokenizer does not do what it is tried for"
    (ids,) = tokenise(made, ["a<s>a"])
    assert made.convert_ids_to_tokens(ids) == ["a", "<", "s", ">", "a"]
    assert tokenise(made, ["a?"]) == [[made.convert_tokens_to_ids("a"), 0]], "an unknown letter is no control token"


def test_a_text_that_cannot_be_written_otherwise_is_refused() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"<unk>": 0, "x": 1, "a": 2}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="x")
    with pytest.raises(UsageError, match="without its control token 'x'"):
        tokenise(fast, ["a x"])


def unigram(pieces: list[str]) -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = [("<unk>", 0.0), ("<s>", 0.0), *((piece, -2.0) for piece in pieces)]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>")


def plain_tokenizer(where: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(where, local_files_only=True)
