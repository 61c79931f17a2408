"""A model whose tokenizer puts a BOS in front: what it is trained on and scored by, and what it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.corpus.task import Record
from bench.model.lora import LoraModel
from bench.spec.run import LoraSpec, ModelSpec
from tests.model_checks import TINY, WORDS, byte_level, own_logits, plain


@pytest.fixture(scope="module")
def with_bos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged tiny model under a tokenizer that puts a BOS in front by itself."""
    from transformers import LlamaConfig, LlamaForCausalLM

    where = tmp_path_factory.mktemp("bos")
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=400, **shape)).save_pretrained(where)
    byte_level("<bos> $A").save_pretrained(where)
    return where


def test_losses_are_those_behind_the_bos(with_bos: Path) -> None:
    """Every token of the record is predicted, the BOS is not, and each is what transformers gives it itself."""
    model = LoraModel.load(with_bos, ModelSpec(name=str(with_bos)), LoraSpec(targets=("q_proj",)), device="cpu")
    tokens = model.encode([Record("1", "river stone"), Record("2", "lamp", prompt="garden ")], 48)
    ids = model.tokenizer("river stone")["input_ids"]
    assert ids[0] == 2
    assert tokens.ids[0, : len(ids)].tolist() == ids
    assert np.flatnonzero(tokens.predicted[0]).tolist() == list(range(1, len(ids)))
    logp = own_logits(plain(with_bos), tokens, 0).detach().log_softmax(1)
    expected = [float(logp[place - 1, ids[place]]) for place in range(1, len(ids))]
    assert model.stats(tokens).logp[0, 1 : len(ids)] == pytest.approx(expected, abs=1e-5)
    assert model.decode(tokens.ids[0, : tokens.lengths[0]].tolist()) == "river stone"


def test_the_bos_counts_against_no_limit(with_bos: Path) -> None:
    """The same record is cut at the same place with and without it."""
    lora = LoraSpec(targets=("q_proj",))
    models = [LoraModel.load(with_bos, ModelSpec(name="x", bos=b), lora, device="cpu") for b in ("auto", "never")]
    record = Record("1", " ".join(WORDS), answer="=> lamp")
    one, other = (model.encode([record], 8, "=>") for model in models)
    assert (one.lengths[0], other.lengths[0]) == (9, 8)
    assert one.own()[0].tolist() == other.own()[0].tolist() == one.ids[0, 1:].tolist()
    assert one.answer[0] == other.answer[0] + 1


@pytest.mark.parametrize("text", ["end <eos> of <bos>text<pad>", "<bos>", "<|endoftext|> </s> <s> [SEP]"])
def test_a_text_that_spells_a_control_token_is_text(with_bos: Path, text: str) -> None:
    lora = LoraSpec(targets=("q_proj",))
    for where in (with_bos, TINY):
        model = LoraModel.load(where, ModelSpec(name=str(where)), lora, device="cpu")
        tokens = model.encode([Record("1", text + " and more")], 64)
        own = tokens.ids[0, len(model.tokenizer("")["input_ids"]) : tokens.lengths[0]].tolist()
        assert not set(own) & set(model.tokenizer.all_special_ids)
        assert model.decode(own) == text + " and more"
