"""FFA-LoRA without noise: the fixed matrices never move, and only what was trained travels."""

from __future__ import annotations

import numpy as np
import pytest

from bench.spec.run import LocalSpec
from defenses import ffa_lora
from defenses.trainers.factor_trainer import FactorTrainer
from tests.defenses.dp_audit import little_llama, make_tokens, run_job
from tests.defenses.test_dp_factors import split

LOCAL = LocalSpec(steps=3, batch=4, lr=1e-2, weight_decay=0.1, max_grad_norm=1.0)


@pytest.mark.parametrize(("factors", "round", "moved"), [("b", 0, "B"), ("b", 1, "B"), ("alternate", 1, "A")])
def test_the_other_matrices_stay_bit_for_bit(factors, round, moved) -> None:
    model = little_llama()
    start = model.get_adapter() + np.float32(0.01)  # so that A has a gradient too
    model.set_adapter(start)
    training = run_job(FactorTrainer(factors), model, make_tokens([6, 9, 7, 8]), LOCAL, nominal=4, round=round)
    assert training.steps == 3
    before, after = split(model, start), split(model, model.get_adapter())
    still = "A" if moved == "B" else "B"
    assert np.array_equal(before[still], after[still])
    assert (before[moved] != after[moved]).mean() > 0.9
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("factors", ["b", "alternate"])
def test_the_defense_sends_what_it_trains(factors) -> None:
    built = ffa_lora.build(ffa_lora.Config(factors=factors))
    assert built.trainer.factors == built.transforms[0].factors == factors  # type: ignore[union-attr, attr-defined]
