"""Tokens from updates of which entries are missing or rounded: the pursuit, and what is seen to be missing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import bench
from attacks import inversion
from attacks.rowspace.algebra import TOLERANCES
from attacks.rowspace.observe import observe, survivors, whole_silo
from attacks.rowspace.pursuit import Projection, pursue
from bench.attack.attack import Reconstruction, Target
from bench.core.update import Layout
from bench.model.lora import LoraModel
from bench.view.view import Reading
from tests.attacks.updates import Adapter, FakeTools, FakeView, Upload, tokens_of, train

TINY = Path(bench.__file__).parent / "models" / "tiny"
RANK, VOCABULARY = 16, 400


def largest(values: NDArray[np.floating], share: float) -> NDArray[np.bool_]:
    """Where the ``share`` of values of largest magnitude is."""
    magnitude = np.abs(values)
    return np.asarray(magnitude > np.quantile(magnitude, 1 - share))


def made_of(chosen: list[int], share: float, noise: float = 0.0, seed: int = 0) -> Projection:
    """128 rows made of the atoms ``chosen``, the smallest entries missing, each known one off by ``noise``."""
    rng = np.random.default_rng(seed)
    atoms = rng.normal(size=(VOCABULARY, RANK))
    change = rng.standard_t(4, size=(128, len(chosen))) @ atoms[chosen]
    known = largest(change, share)
    change = (change + noise * rng.normal(size=change.shape)) * known
    return Projection(change, known, atoms, noise)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
def test_the_atoms_of_a_pruned_product_are_found_and_no_others(share: float) -> None:
    for seed in range(5):
        chosen = [3, 57, 200]
        fit = pursue([made_of(chosen, share, seed=seed), made_of(chosen, share, seed=seed + 50)], 15, VOCABULARY,
                     TOLERANCES)  # fmt: skip
        assert fit is not None
        assert sorted(fit.chosen) == chosen
        assert fit.share < 1e-12


def test_noise_of_a_known_size_is_allowed_for() -> None:
    chosen = [3, 57, 200, 300]
    part = made_of(chosen, 0.6, noise=0.05)
    fit = pursue([part], 15, VOCABULARY, TOLERANCES)
    assert fit is not None
    assert sorted(fit.chosen) == chosen
    unaware = Projection(part.change, part.known, part.atoms)
    assert pursue([unaware], 15, VOCABULARY, TOLERANCES) is None


def test_what_no_few_atoms_explain_is_refused() -> None:
    rng = np.random.default_rng(1)
    for share in (1.0, 0.5, 0.1):
        for seed in range(3):
            part = made_of(rng.choice(VOCABULARY, 30, replace=False).tolist(), share, seed=seed)
            assert pursue([part], RANK - 1, VOCABULARY, TOLERANCES) is None
    empty = Projection(np.zeros((4, RANK)), np.zeros((4, RANK), bool), np.ones((3, RANK)))
    assert pursue([empty], 3, VOCABULARY, TOLERANCES) is None


def test_taking_what_is_missing_for_zero_finds_nothing() -> None:
    """The broken copy that the masks are there against."""
    part = made_of([3, 57, 200], 0.5)
    assert pursue([Projection(part.change, np.ones_like(part.known), part.atoms)], 15, VOCABULARY, TOLERANCES) is None


LAYOUT = Layout(("q.lora_A.weight", "q.lora_B.weight"), ((4, 50), (50, 4)))


def test_survivors() -> None:
    rng = np.random.default_rng(2)
    before = rng.normal(size=LAYOUT.size).astype(np.float32)
    before[200:] = 0
    assert survivors(LAYOUT, before, before).all(), "what did not move at all was not pruned"
    moved = before + rng.normal(size=LAYOUT.size).astype(np.float32)
    assert survivors(LAYOUT, before, moved).all()
    dropped = rng.random(LAYOUT.size) < 0.3
    weights = np.where(dropped, np.float32(0), moved)
    assert np.array_equal(survivors(LAYOUT, before, weights), ~dropped), "weights pruned"
    changes = np.where(dropped, before, moved)
    assert np.array_equal(survivors(LAYOUT, before, changes), ~dropped), "changes pruned"
    still = np.where(np.arange(LAYOUT.size) < 200, np.where(dropped, 0, before), moved).astype(np.float32)
    expected = np.where(np.arange(LAYOUT.size) < 200, ~dropped, True)
    assert np.array_equal(survivors(LAYOUT, before, still), expected), "an A that only lost entries"


def test_a_grid_is_seen_and_measured() -> None:
    rng = np.random.default_rng(3)
    before = rng.normal(size=LAYOUT.size).astype(np.float32)
    change = rng.integers(-20, 21, LAYOUT.size).astype(np.float32) * np.float32(1e-3)

    def seen(change: Adapter) -> Any:
        view: Any = FakeView(LAYOUT, (Upload(before + change, before),))
        return observe(view, "silo-0", 0)

    assert seen(change).deviation == pytest.approx(1e-3 / np.sqrt(6), rel=1e-2)
    assert seen(change + rng.normal(0, 2e-4, LAYOUT.size).astype(np.float32)).deviation == 0
    assert not seen(change).whole


def partial(values: Adapter, support: NDArray[np.int64]) -> Any:
    return SimpleNamespace(
        kind="partial", round=0, silos=frozenset({"silo-0"}), support=support, values=values, before=None
    )


@pytest.mark.parametrize("of", ["changes", "weights"])
def test_a_part_of_an_upload_is_read_against_the_first_adapter(of: str) -> None:
    rng = np.random.default_rng(4)
    initial = rng.normal(size=LAYOUT.size).astype(np.float32)
    change = rng.normal(0, 0.01, LAYOUT.size).astype(np.float32)
    support = np.flatnonzero(rng.random(LAYOUT.size) < 0.8)
    values = np.zeros(LAYOUT.size, np.float32)
    values[support] = (change + (initial if of == "weights" else 0))[support]
    view: Any = FakeView(LAYOUT, (partial(values, support),), initial=initial)
    found = observe(view, "silo-0", 0)
    assert found is not None
    assert np.array_equal(np.flatnonzero(found.known), support)
    assert found.change[support] == pytest.approx(change[support], abs=1e-6)
    assert "part of the upload" in found.reads
    assert observe(FakeView(LAYOUT, (partial(values, support),)), "silo-0", 0) is None  # type: ignore[arg-type]
    assert observe(view, "silo-1", 0) is None


def test_other_rounds_count_only_where_they_are_about_the_same_records() -> None:
    public = SimpleNamespace(sizes={})
    view: Any = SimpleNamespace(spec={"pool": {"candidates": 24, "share": 0.5}}, public=public)
    assert whole_silo(view, Target(0, "silo-0", 12, 4))
    assert not whole_silo(view, Target(0, "silo-0", 8, 1))
    public.sizes = {"silo-0": 30, "silo-1": 6}
    assert not whole_silo(view, Target(0, "silo-0", 12, 4))
    assert whole_silo(view, Target(0, "silo-1", 6, 1))
    view.spec, public.sizes = {}, {}
    assert not whole_silo(view, Target(0, "silo-0", 12, 4))


# -- on a real model --------------------------------------------------------------------------------------------------


def solve(
    model: LoraModel, *readings: Any, initial: Adapter | None = None, spec: dict[str, Any] | None = None
) -> Reconstruction:
    view: Any = FakeView(model.layout, readings, spec or {}, initial)
    population = tokens_of(np.random.default_rng(7).integers(0, model.vocab_size, (30, 10)).tolist())
    target = Target(readings[0].round, "silo-0", 1, 1)
    (answer,) = inversion.build(inversion.Config()).reconstruct(view, [target], FakeTools(model, population))
    return answer


def pruned(model: LoraModel, after: Adapter, share: float) -> Adapter:
    """The weights of smallest magnitude zeroed, tensor by tensor."""
    flat = after.copy()
    for _, tensor in model.layout.tensors(flat):
        tensor[~largest(tensor, 1 - share)] = 0
    return flat


TEXT = (
    "The patient was seen in surgery with wound pain.",
    "Given morphine 20 mg at night.",
    "Dr Bell raised apixaban to 10 mg.",
    "Pain for 6 days, worse at night.",
    "Seen with cough and fever for 3 days.",
    "No pain since surgery.",
)


def records(model: LoraModel, length: int) -> list[list[int]]:
    return [[int(i) for i in model.tokenizer(text)["input_ids"]][:length] for text in TEXT]


def figures(answers: list[Reconstruction], notes: list[list[int]]) -> tuple[float, float]:
    """Mean precision and recall of the claimed tokens."""
    both = [(set(a.token_set.tolist()), set(r[:-1])) for a, r in zip(answers, notes, strict=True)]
    return (
        float(np.mean([len(c & t) / max(len(c), 1) for c, t in both])),
        float(np.mean([len(c & t) / len(t) for c, t in both])),
    )


@pytest.mark.parametrize(("share", "length"), [(0.5, 8), pytest.param(0.9, 4, marks=pytest.mark.slow)])
def test_pruning_of_weights_does_not_hide_a_short_record(
    model: LoraModel, initial: Adapter, share: float, length: int
) -> None:
    notes = records(model, length)[:4]
    answers = [solve(model, Upload(pruned(model, train(model, initial, tokens_of([r])), share), initial))
               for r in notes]  # fmt: skip
    precision, recall = figures(answers, notes)
    assert recall > 0.9
    assert precision > 0.9
    wrong, _ = figures(answers, notes[1:] + notes[:1])
    assert wrong < 0.4, "another record's tokens, some of which are common"


@pytest.mark.slow
def test_a_coarse_grid_does_not_hide_a_short_record(model: LoraModel, initial: Adapter) -> None:
    """Rounded at random to 8 bits of the largest value, as a public quantiser does."""
    rng = np.random.default_rng(10)
    notes, answers = records(model, 6)[:3], []
    for record in notes:
        change = train(model, initial, tokens_of([record])).astype(float) - initial
        step = np.abs(change).max() / 127
        change = step * np.floor(change / step + rng.random(len(change)))
        answers.append(solve(model, Upload((initial + change).astype(np.float32), initial)))
    assert figures(answers, notes)[1] > 0.75
    assert not any(a.exact for a in answers)


def test_half_of_the_coordinates_in_clear_show_a_short_record(model: LoraModel, initial: Adapter) -> None:
    notes, answers = records(model, 6)[:2], []
    support = np.flatnonzero(np.random.default_rng(11).random(model.layout.size) < 0.5)
    for record in notes:
        values = np.zeros(model.layout.size, np.float32)
        values[support] = (train(model, initial, tokens_of([record])) - initial)[support]
        answers.append(solve(model, partial(values, support), initial=initial))
    assert figures(answers, notes) == (1.0, 1.0)


def test_uploads_of_other_rounds_help_to_rank(model: LoraModel, initial: Adapter) -> None:
    """Eight records beyond the rank in each of three rounds: the same records, each round's update from where the last
    ended."""
    from tests.attacks.updates import auc

    tokens = tokens_of(np.random.default_rng(12).integers(0, model.vocab_size, (8, 8)).tolist())
    there = {int(t) for row in tokens.ids for t in row[:-1]}
    uploads, before = [], initial
    for number in range(3):
        after = train(model, before, tokens, lr=0.3)
        uploads.append(Upload(after, before, round=number))
        before = after
    spec: dict[str, Any] = {"pool": {"candidates": 2, "share": 0.5}}
    alone = auc(solve(model, uploads[0]).token_scores, there)
    assert auc(solve(model, *uploads, spec=spec).token_scores, there) > alone + 0.02


def test_a_reading_of_another_kind_is_left_alone() -> None:
    view: Any = FakeView(LAYOUT, (Reading("sum", 0, frozenset({"silo-0", "silo-1"}), "test"),))  # type: ignore[arg-type]
    assert observe(view, "silo-0", 0) is None
