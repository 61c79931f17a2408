"""The algebra under the reconstruction attack, and the probe that finds what a model's projections read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bench
from attacks.rowspace import algebra
from attacks.rowspace.constraints import changes, constraints
from attacks.rowspace.finish import finish
from attacks.rowspace.language import arrange, by_likelihood, opening
from attacks.rowspace.probe import Probe, projections
from bench.core.errors import SiloBenchError
from bench.core.update import Layout
from bench.model.lora import LoraModel
from bench.spec.run import LoraSpec, ModelSpec
from tests.attacks.updates import tokens_of, train

TINY = Path(bench.__file__).parent / "models" / "tiny"


@pytest.fixture(scope="module")
def tiny() -> LoraModel:
    return LoraModel.load(TINY, ModelSpec(name="tiny"), LoraSpec(rank=16, alpha=16.0), device="cpu")


def test_row_space_of_a_product_is_that_of_its_right_factor() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(5, 12))
    space = algebra.row_space(rng.normal(size=(40, 5)) @ inputs, 0.0)
    assert (space.rank, space.width, space.full) == (5, 12, False)
    assert algebra.residuals(space, inputs) == pytest.approx(0, abs=1e-12)
    assert (algebra.residuals(space, rng.normal(size=(100, 12))) > 0.3).all()
    assert algebra.residuals(space, np.zeros((1, 12))) == [0.0]
    assert algebra.row_space(np.zeros((4, 3)), 0.0).rank == 0


def test_row_spaces_follow_a_change_of_coordinates() -> None:
    rng = np.random.default_rng(1)
    inputs, matrix = rng.normal(size=(4, 9)), rng.normal(size=(9, 9))
    space = algebra.row_space(rng.normal(size=(30, 4)) @ inputs, 0.0).mapped(matrix)
    assert algebra.residuals(space, inputs @ matrix) == pytest.approx(0, abs=1e-10)


def test_noise_sets_the_rank() -> None:
    rng = np.random.default_rng(2)
    clean = np.outer(rng.normal(size=50), rng.normal(size=8))
    noise = rng.normal(size=(50, 8)) * 1e-3
    top = float(np.linalg.norm(noise, 2))
    assert algebra.row_space(clean + noise, 2 * top).rank == 1
    assert algebra.row_space(clean + noise, 0.0).rank == 8
    assert algebra.row_space(clean + noise, 0.0, tolerance=0.1).rank == 1


def test_whitening_makes_the_second_moment_the_identity() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 3
    white = vectors @ algebra.Whitening.of(vectors.T @ vectors / 500, ridge=0.0).matrix
    assert white.T @ white / 500 == pytest.approx(np.eye(6), abs=1e-8)


@pytest.mark.parametrize("residual", [1e-4, 0.003, 0.2, 0.9])
def test_chance_of_a_line_in_the_plane(residual: float) -> None:
    """The angle of a random direction to a line in the plane is uniform: P(sine <= x) = 2 asin(x) / pi."""
    space = algebra.RowSpace(np.array([[1.0, 0.0]]), np.array([1.0, 0.0]))
    found = algebra.log_chance(np.array([residual]), space)
    assert found == pytest.approx(np.log(2 * np.arcsin(residual) / np.pi), rel=1e-3)


def test_chance_of_a_plane_in_space() -> None:
    """The sine of the angle to a plane is |z| of a uniform point on the sphere: uniform (Archimedes)."""
    space = algebra.RowSpace(np.eye(3)[:2], np.ones(2))
    x = np.array([1e-5, 1e-3, 0.25, 1.0])
    assert algebra.log_chance(x, space) == pytest.approx(np.log(x), rel=1e-3, abs=1e-9)


def test_chance_far_below_the_smallest_double() -> None:
    space = algebra.RowSpace(np.eye(600)[:3], np.ones(3))
    values = algebra.log_chance(np.array([1e-6, 1e-5, 0.05, 0.5, 1.0]), space)
    assert np.isfinite(values).all()
    assert (np.diff(values) > 0).all()
    assert values[0] < -5000
    assert values[-1] == pytest.approx(0.0, abs=1e-9)


def test_no_row_space_no_information() -> None:
    for basis in (np.eye(3), np.zeros((0, 3))):
        assert algebra.log_chance(np.array([0.0, 0.5]), algebra.RowSpace(basis, np.ones(3))).tolist() == [0.0, 0.0]


@settings(deadline=None)  # the first call imports SciPy
@given(st.lists(st.floats(-100, 0), min_size=1, max_size=6))
def test_combined_chance_is_fishers(values: list[float]) -> None:
    from scipy.stats import chi2

    expected = chi2.logsf(-2 * sum(values), 2 * len(values))
    assert algebra.combine([np.array([v]) for v in values])[0] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_storage_noise_bounds_what_rounding_does() -> None:
    rng = np.random.default_rng(4)
    for shape in ((192, 16), (16, 576)):
        after = rng.normal(0, 0.05, shape)
        step = rng.normal(0, 1e-4, shape)
        stored = after.astype(np.float32).astype(float)
        error = np.linalg.norm(stored - after, 2)
        bound = algebra.storage_noise(stored, step)
        assert error < bound < 5 * error
    assert algebra.storage_noise(step, step) == 0.0


def test_direction_evidence_prefers_what_the_change_is_made_of() -> None:
    rng = np.random.default_rng(5)
    inputs = rng.normal(size=(40, 16))
    change = rng.normal(size=(200, 40)) @ inputs
    there, away = (
        algebra.direction_evidence(change, inputs),
        algebra.direction_evidence(change, rng.normal(size=(4000, 16))),
    )
    assert (there[:, None] > away[None]).mean() > 0.75
    assert (algebra.direction_evidence(change[:, :1] @ np.ones((1, 16)), inputs) == 0).all()


LAYOUT = Layout(
    ("m.0.q.lora_A.weight", "m.0.q.lora_B.weight", "m.0.v.lora_A.weight", "m.0.v.lora_B.weight", "head.bias"),
    ((4, 6), (8, 4), (4, 6), (5, 4), (3,)),
)


def test_changes_of_a_layout() -> None:
    before = np.arange(LAYOUT.size, dtype=np.float32)
    after = before.copy()
    after[24:28] += 0.5  # the first row of B of q
    found = changes(LAYOUT, before, after)
    assert set(found) == {"m.0.q", "m.0.v"} == set(projections(LAYOUT.names))
    assert found["m.0.q"].db[0].tolist() == [0.5] * 4
    assert not found["m.0.q"].db[1:].any()
    assert not found["m.0.v"].db.any()
    assert found["m.0.q"].a.shape == (4, 6)


def test_constraints_leave_out_what_did_not_move() -> None:
    rng = np.random.default_rng(6)
    before = np.zeros(LAYOUT.size, dtype=np.float32)
    before[:24] = rng.normal(size=24)
    after = before.copy()
    after[24:56] = (rng.normal(size=(8, 2)) @ rng.normal(size=(2, 4))).ravel()
    (one,) = constraints(("m.0.q", "m.0.v"), changes(LAYOUT, before, after), np.eye(6), algebra.ROUNDING)
    assert (one.name, one.space.rank, one.usable, one.on_inputs) == ("m.0.q B", 2, True, False)


def test_changes_of_a_extend_the_test_to_more_inputs_than_the_rank() -> None:
    """Two projections of rank 4 that read the same 6 inputs of width 20: their A moved within the span of those."""
    rng = np.random.default_rng(7)
    layout = Layout(
        ("q.lora_A.weight", "q.lora_B.weight", "v.lora_A.weight", "v.lora_B.weight"), ((4, 20), (9, 4), (4, 20), (9, 4))
    )
    inputs = rng.normal(size=(6, 20))
    before = np.zeros(layout.size, dtype=np.float32)
    after = np.concatenate(
        [np.concatenate([(rng.normal(size=(4, 6)) @ inputs).ravel(), rng.normal(size=36)]) for _ in range(2)]
    ).astype(np.float32)
    found = {c.name: c for c in constraints(("q", "v"), changes(layout, before, after), np.eye(20), 1e-5)}
    assert found["q B"].space.full
    assert found["q+v A"].space.rank == 6
    assert found["q+v A"].usable
    fits, chance = found["q+v A"].test(found["q+v A"].vectors(inputs))
    assert fits.all()
    assert (chance < -50).all()
    assert not found["q+v A"].test(found["q+v A"].vectors(rng.normal(size=(50, 20))))[0].any()


def test_probe_finds_the_groups_and_their_inputs(tiny: LoraModel) -> None:
    probe = Probe(tiny)
    assert [tuple(name.rsplit(".", 1)[1] for name in group) for group in probe.groups] == [("q_proj", "v_proj")] * 4
    assert probe.reads_tokens_only
    base = tiny.module.get_base_model().model
    ids = np.array([[5, 9, 70], [8, 8, 1]])
    first, second = probe.inputs(ids, 2)
    with torch.no_grad():
        embedded = base.embed_tokens(torch.tensor(ids))
        expected = base.layers[0].input_layernorm(embedded).numpy()
    assert first == pytest.approx(expected, abs=1e-6)
    assert second.shape == first.shape
    assert not np.allclose(first, second)
    start, rows = next(iter(probe.vocabulary()))
    assert start == 0
    assert rows[9] == pytest.approx(expected[0, 1], abs=1e-6)
    assert sum(len(rows) for _, rows in probe.vocabulary()) == tiny.vocab_size
    hooks = [module for module in tiny.module.modules() if module._forward_pre_hooks]
    assert hooks == []


def test_probe_separates_projections_that_read_different_things() -> None:
    model = LoraModel.load(TINY, ModelSpec(name="tiny"), LoraSpec(targets=("v_proj", "k_proj", "o_proj", "down_proj")))
    groups = [tuple(name.rsplit(".", 1)[1] for name in group) for group in Probe(model).groups]
    assert groups == [("k_proj", "v_proj"), ("o_proj",), ("down_proj",)] * 4
    assert Probe(model).reads_tokens_only


def test_learned_positions_are_refused_with_a_reason() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    base = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_positions=32, n_embd=16, n_layer=1, n_head=2))
    lora = LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True)
    model = LoraModel(get_peft_model(base.eval(), lora), None, torch.device("cpu"))
    with pytest.raises(SiloBenchError, match="position"):
        next(iter(Probe(model).vocabulary()))


def test_the_last_token_is_read_from_the_gradient(tiny: LoraModel) -> None:
    rng = np.random.default_rng(8)
    before = tiny.initial_adapter(rng)
    for start in (1, 3):
        row = rng.integers(0, tiny.vocab_size, 9).tolist()
        after = train(tiny, before, tokens_of([row], start))
        found = finish(tiny, before, after.astype(float) - before, row[:-1], [1, 2, 3])
        assert found.ids == tuple(row)
        assert found.cosine > 0.99999
        other = finish(tiny, before, rng.normal(size=len(before)), row[:-1], [1])
        assert other.cosine < 0.5
    tiny.set_adapter(None)


def test_language_orders_and_ranks(tiny: LoraModel) -> None:
    text = list(tiny.tokenizer("The patient")["input_ids"])
    population = tokens_of([[*text, 3, 4], [*text, 5, 6], [7, 8, 9]], start=len(text))
    known = np.unique([*text, 11, 12])
    assert opening(known, population) == tuple(text)
    assert opening(np.array([8, 11]), tokens_of([[8, 9, 9]])) == (8,)
    assert opening(np.array([11, 14]), tokens_of([[8, 14, 9]])) == (14,)
    found = arrange(tiny, known, population, 20)
    assert set(found) == set(known.tolist())
    assert found[: len(text)] == tuple(text)
    assert arrange(tiny, known, population, len(text) + 1)[:-1] == tuple(text)
    natural = tuple(tiny.tokenizer("The patient was seen")["input_ids"])
    assert by_likelihood(tiny, [natural[::-1], natural])[0] == natural
