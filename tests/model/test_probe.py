"""What is no causal, finite, long and wide enough model is refused when it is loaded, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.assets.assets import Assets
from bench.cli.main import main
from bench.core.errors import UsageError
from bench.model import probe
from bench.model.lora import LoraModel
from bench.plugins.find import Plugins
from bench.spec.run import LoraSpec, ModelSpec, PluginSpec, PoolSpec, RunSpec
from bench.training.materials import Workshop
from tests.model_checks import RECORDS, TINY

Change = Callable[[Any], object]
SIZE = {"vocab_size": 2048, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE = {**SIZE, "intermediate_size": 64}
ENCODERS = ("Bert", "Roberta", "Electra", "Camembert", "RoFormer")


def unchanged(module: Any) -> None:
    pass


def saved(path: Path, config: Any, change: Change = unchanged, words: Any = None) -> Path:
    """A random model of ``config``, changed, with the tokenizer ``words`` or that of ``tiny``."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(config)
        change(module)
    module.save_pretrained(path)
    (words or AutoTokenizer.from_pretrained(TINY)).save_pretrained(path)
    return path


def llama(**more: Any) -> Any:
    return transformers.LlamaConfig(**{**WIDE, "num_key_value_heads": 2, **more})


def gpt2(positions: int) -> Any:
    return transformers.GPT2Config(vocab_size=2048, n_positions=positions, n_embd=32, n_layer=2, n_head=2)


def encoder(kind: str, **more: Any) -> Any:
    config = getattr(transformers, f"{kind}Config")
    return config(**WIDE, embedding_size=32, hidden_dropout_prob=0, attention_probs_dropout_prob=0, **more)


def load(path: Path, *targets: str, dtype: Any = "float32") -> LoraModel:
    lora = LoraSpec(rank=2, targets=targets) if targets else LoraSpec(rank=2)
    return LoraModel.load(path, ModelSpec(name=str(path), dtype=dtype), lora, "cpu")


def run(path: Path, store: Path, *sets: str, tokens: int = 48) -> int:
    """A small federation from the command line; its exit code."""
    small = ("pool.candidates=6", "pool.validation=4", "pool.heldout=6", "pool.population=12", "pool.min_tokens=16")
    brief = (
        f"pool.max_tokens={tokens}",
        "federation.rounds=1",
        "federation.local.epochs=1",
        "clinical-notes.notes=120",
    )
    words = ["run", "--preset", "smoke", "--defense", "fedavg", "--attack", "mia", "--adversary", "outsider"]
    words += ["--model", str(path), "--store", str(store)]
    return main([*words, *(part for value in (*small, *brief, *sets) for part in ("--set", value))])


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_is_no_causal_model(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, encoder(kind))
    with pytest.raises(UsageError, match=r"is no causal language model.*earlier tokens move by .* nats"):
        load(path, "query")


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_same_as_a_decoder_is_taken(tmp_path: Path, kind: str) -> None:
    load(saved(tmp_path, encoder(kind, is_decoder=True)), "query")


def test_a_run_on_an_encoder_ends_in_that_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "bert", encoder("Bert"))
    assert run(path, tmp_path / "store", 'federation.lora.targets=["query"]') == 2
    said = capsys.readouterr()
    assert "is no causal language model" in said.err
    assert "AUC" not in said.out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_peek_of_one_token_is_found_in_every_type_and_tiny_passes(dtype: Any) -> None:
    model = load(TINY, dtype=dtype)
    spec = ModelSpec(name="tiny", dtype=dtype)
    probe.check(model._logits, TINY, spec, model.limits)
    honest = model._logits

    def peeking(tokens: Any) -> torch.Tensor:
        logits = honest(tokens)
        return torch.cat([logits[:, :-1] + 0.1 * logits[:, 1:], logits[:, -1:]], 1)

    with pytest.raises(UsageError, match="is no causal language model"):
        probe.check(peeking, TINY, spec, model.limits)


def test_the_probe_is_a_few_tokens_and_draws_from_no_global_generator() -> None:
    seen: list[int] = []
    model = load(TINY)
    state = torch.get_rng_state()

    def counted(tokens: Any) -> torch.Tensor:
        seen.append(tokens.ids.size)
        return model._logits(tokens)

    probe.check(counted, TINY, ModelSpec(name="tiny"), model.limits)
    assert len(seen) == 1
    assert sum(seen) <= 64
    assert torch.equal(torch.get_rng_state(), state)


def nan(module: Any) -> None:
    module.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")


def nan_of_a_rare_token(module: Any) -> None:
    module.model.embed_tokens.weight[1999] = float("nan")


@pytest.mark.parametrize(("change", "named"), [(nan, "mlp.up_proj"), (nan_of_a_rare_token, "embed_tokens")])
def test_weights_that_are_no_numbers_are_not_blamed_on_the_learning_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change, named: str
) -> None:
    path = saved(tmp_path / "model", llama(tie_word_embeddings=False), change)
    assert run(path, tmp_path / "store") == 2
    said = capsys.readouterr().err
    assert named in said
    assert "not all numbers (NaN): the file is damaged" in said
    assert "federation.local.lr" not in said


def large_values(module: Any) -> None:
    """Values of 100,000 and more between the layers, out of weights that float16 holds."""
    for name in ("up_proj", "down_proj"):
        getattr(module.model.layers[0].mlp, name).weight *= 1e5


def large_weights(module: Any) -> None:
    module.lm_head.weight[5, 6] = 1e5


@pytest.mark.parametrize(
    ("change", "says"), [(large_values, "not finite in float16"), (large_weights, "lm_head.weight")]
)
def test_what_overflows_in_float16_names_the_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change, says: str
) -> None:
    path = saved(tmp_path / "model", llama(tie_word_embeddings=False), change)
    assert run(path, tmp_path / "store", "model.dtype=float16") == 2
    said = capsys.readouterr().err
    assert says in said
    assert "--dtype bfloat16 or float32" in said
    load(path)
    load(path, dtype="bfloat16")


def test_too_few_learned_positions_are_refused_and_enough_are_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "gpt2", gpt2(32))
    sets = ('federation.lora.targets=["c_attn"]',)
    assert run(path, tmp_path / "store", *sets) == 2
    assert "has 32 positions, and pool.max_tokens is 48: take --set pool.max_tokens=32" in capsys.readouterr().err
    assert run(path, tmp_path / "store", *sets, tokens=32) == 0


def test_a_bos_in_front_takes_a_position_too() -> None:
    table = probe.Limits(vocabulary=9, table=32, trained=32)
    assert probe.check_length(table, 32, "m") is None
    with pytest.raises(UsageError, match=r"m has 32 positions.*is 32 behind 1 .*take --set pool\.max_tokens=31"):
        probe.check_length(table, 32, "m", start=1)
    assert "texts of 32 tokens" in (probe.check_length(probe.Limits(9, None, 32), 32, "m", start=1) or "")


@pytest.mark.parametrize(
    ("config", "table", "trained"),
    [
        (gpt2(32), 32, 32),
        (transformers.OPTConfig(**SIZE, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=32), 32, 32),
        (encoder("Bert", is_decoder=True, max_position_embeddings=32), 32, 32),
        (encoder("Roberta", is_decoder=True, max_position_embeddings=32), 30, 32),
        (
            transformers.GPTJConfig(vocab_size=2048, n_positions=32, n_embd=32, n_layer=1, n_head=2, rotary_dim=4),
            32,
            32,
        ),
        (llama(max_position_embeddings=32), None, 32),
        (transformers.BloomConfig(vocab_size=2048, hidden_size=32, n_layer=1, n_head=2), None, None),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_positions_are_counted_as_the_model_counts_them(config: Any, table: int | None, trained: int | None) -> None:
    module = AutoModelForCausalLM.from_config(config).eval()
    found = probe.limits(module)
    assert (found.table, found.trained) == (table, trained)
    longest = table or 40
    ids = torch.full((1, longest + 1), 7)
    with torch.no_grad():
        module(input_ids=ids[:, :longest], use_cache=False)
        if table is not None:
            with pytest.raises((IndexError, RuntimeError)):
                module(input_ids=ids, use_cache=False)


def test_a_model_beyond_its_trained_length_gets_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "short", llama(max_position_embeddings=32))
    assert run(path, tmp_path / "store") == 0
    said = capsys.readouterr().err
    assert said.count("was made for texts of 32 tokens, and pool.max_tokens is 48") == 1
    assert run(path, tmp_path / "other", tokens=32) == 0
    assert "was made for" not in capsys.readouterr().err


def test_a_dry_run_tells_positions_and_projections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "gpt2", gpt2(32))
    words = ["run", "--preset", "smoke", "--defense", "fedavg", "--attack", "mia", "--model", str(path), "--dry-run"]
    words += ["--store", str(tmp_path / "store")]
    assert main([*words, "--set", "pool.max_tokens=48"]) == 2
    assert "has 32 positions" in capsys.readouterr().err
    fits = [*words, "--set", "pool.max_tokens=32"]
    assert main([*fits, "--set", 'federation.lora.targets=["wq"]']) == 2
    assert "--set federation.lora.targets='[\"c_attn\"]'" in capsys.readouterr().err
    assert main(fits) == 0


def extended(*tokens: str, pad: bool = False) -> Any:
    words = AutoTokenizer.from_pretrained(TINY)
    words.add_special_tokens({"pad_token": "<pad>"}) if pad else words.add_tokens(list(tokens))
    return words


def test_an_unused_token_beyond_the_vocabulary_is_no_fault(tmp_path: Path) -> None:
    model = load(saved(tmp_path, llama(), words=extended(pad=True)))
    assert len(model.tokenizer) == model.vocab_size + 1
    assert int(model.encode(RECORDS, 64, "\nOutcome:").ids.max()) < model.vocab_size


def test_a_used_token_beyond_the_vocabulary_is_named(tmp_path: Path) -> None:
    model = load(saved(tmp_path, llama(), words=extended("morphine")))
    with pytest.raises(UsageError, match=r"Record 'd' has the token 'morphine' \(id 2048\).*ends at id 2047"):
        model.encode(RECORDS, 64, "\nOutcome:")
    with pytest.raises(UsageError, match=r"The label text 'morphine' has the token 'morphine' \(id 2048\)"):
        model.label_rows(["morphine", " other"])


def test_the_longest_record_is_passed_forward_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RunSpec(
        task=PluginSpec(name="clinical-notes", config={"notes": 60}),
        model=ModelSpec(name="tiny"),
        pool=PoolSpec(candidates=2, validation=0, heldout=2, population=2),
        defense=(PluginSpec(name="fedavg"),),
    )

    def stats(self: LoraModel, tokens: Any, *more: Any) -> Any:
        assert len(tokens) == 1
        assert tokens.lengths[0] == 48
        raise IndexError("index out of range in self")

    monkeypatch.setattr(LoraModel, "stats", stats)
    with pytest.raises(UsageError, match=r"tiny can't be run on a record of 48 tokens \(IndexError: index out"):
        Workshop(Plugins(), Assets(quiet=True), "cpu").materials(spec, 0)


def test_a_model_that_fails_at_a_forward_pass_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaModel

    def forward(*args: Any, **more: Any) -> Any:
        raise NotImplementedError("no kernel")

    monkeypatch.setattr(LlamaModel, "forward", forward)
    with pytest.raises(UsageError, match=r"can't be run on a few tokens \(NotImplementedError: no kernel\)"):
        load(TINY)
