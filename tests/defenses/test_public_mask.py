"""The public mask: sizes by hand, everything is sent again, the same for all, and of public things alone."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.conformance.fixtures import transform_context
from bench.core.errors import UsageError
from bench.core.parties import silo
from bench.core.update import Layout, Update
from bench.defense.compose import Defense, compose, fill
from bench.defense.contexts import RoundContext
from bench.defense.defaults.mean import Mean
from bench.defense.public import Public, alike
from bench.spec.run import Dropout, FederationSpec
from defenses import fedshield_exact
from defenses.transforms.prune import Schedule
from defenses.transforms.public_mask import PublicMask, PublicMaskConfig
from tests.federation import fakes

LAYOUT = Layout(("a", "b"), ((2, 5), (30,)))
HALF = Schedule(start=0, end=0, sparsity_start=0.5, sparsity_end=0.5)


def known(round: int, adapter: np.ndarray, rounds: int = 50, nonce: int = 0, layout: Layout = LAYOUT) -> RoundContext:
    names = tuple(silo(i) for i in range(3))
    public = Public(alike(layout), names, dict.fromkeys(names, 1), rounds, (names,) * rounds, nonce)
    return RoundContext(public=public, round=round, global_adapter=adapter, lr=1e-3, steps=1)


def drawn(seed: int, layout: Layout = LAYOUT) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(layout.size).astype(np.float32)


def supports(mask: PublicMask, round: int, seed: int = 0, nonce: int = 0) -> set[int]:
    found = mask.support(known(round, drawn(seed), nonce=nonce))
    assert found is not None
    return {int(i) for i in found}


def test_the_first_round_is_dense() -> None:
    assert PublicMask(HALF).support(known(0, drawn(0))) is None
    assert PublicMask(Schedule(start=0.5)).support(known(23, drawn(0))) is None  # ends at 24/50 of the run
    assert PublicMask(Schedule(start=0.5)).support(known(24, drawn(0))) is not None


def test_sizes_by_hand() -> None:
    """a has 10 values: 5 are sent, a quarter of them, 1.25, rounded to 1, goes round; b has 30: 15, of which 4."""
    mask = PublicMask(HALF, rotate=0.25)
    found = np.array(sorted(supports(mask, 1)))
    assert (found < 10).sum() == 5
    assert (found >= 10).sum() == 15
    # under the published schedule in 10 rounds: round 5 ends at .6, half way, so .35: 10 - 4 (3.5 to even), 30 - 10
    found = PublicMask(Schedule()).support(known(5, drawn(0), rounds=10))
    assert found is not None
    assert ((found < 10).sum(), (found >= 10).sum()) == (6, 20)


def test_which_are_sent_by_hand() -> None:
    layout = Layout(("a",), ((8,),))
    adapter = np.array([0.1, -9, 3, 0, -4, 5, 0.2, -0.3], np.float32)
    context = known(1, adapter, layout=layout)
    order = context.public.generator("mask", 0).permutation(8)
    found = PublicMask(HALF, rotate=0.25).support(context)  # 4 sent, of which 1 goes round
    assert found is not None
    first = int(order[0])
    largest = [i for i in (1, 5, 4, 2, 7, 6, 0, 3) if i != first][:3]
    assert sorted(found) == sorted([first, *largest])
    later = PublicMask(HALF, rotate=0.25).support(known(3, adapter, layout=layout))
    assert later is not None
    assert order[2] in later  # rounds 1 and 2 sent the first two


@settings(max_examples=20, deadline=None)
@given(
    st.floats(0.05, 1),
    st.floats(0, 1),
    st.lists(st.integers(1, 60), min_size=1, max_size=3),
    st.integers(0, 1000),
)
def test_every_coordinate_is_sent_again_in_time(rotate, sparsity, sizes, seed) -> None:
    layout = Layout(tuple(f"t{i}" for i in range(len(sizes))), tuple((n,) for n in sizes))
    mask = PublicMask(Schedule(0, 0, sparsity, sparsity), rotate)
    adapter = drawn(seed, layout)
    sent = [mask.support(known(r, adapter, layout=layout)) for r in range(1, 130)]
    for tensor, size in enumerate(sizes):
        kept = max(1, size - round(sparsity * size))
        turning = min(kept, max(1, round(rotate * kept)))
        span = range(layout.offsets[tensor], layout.offsets[tensor + 1])
        window = -(-size // turning)
        for start in (0, 7):
            seen: set[int] = set()
            for found in sent[start : start + window]:
                inside = set(span) if found is None else {int(i) for i in found} & set(span)
                assert len(inside) == (size if found is None else kept)
                seen |= inside
            assert seen == set(span)


def test_without_turns_what_is_left_out_stays_out() -> None:
    """The broken copy that the turns are there for: the same coordinates are left out for ever."""

    class Stuck(PublicMask):
        def _counts(self, size: int, number: int, rounds: int) -> tuple[int, int]:
            return super()._counts(size, number, rounds)[0], 0

    stuck, mask = Stuck(HALF), PublicMask(HALF)
    assert len(set().union(*(supports(stuck, r) for r in range(1, 40)))) == 20
    assert len(set().union(*(supports(mask, r) for r in range(1, 40)))) == 40


def test_it_depends_on_what_is_public_alone() -> None:
    """The same for every silo, secret, state and update; another for another round, adapter or public nonce."""
    adapter = drawn(1)
    contexts = [
        replace(transform_context(adapter, 2, layout=LAYOUT, secret_seed=seed), state={"x": np.ones(seed)})
        for seed in (1, 2)
    ]
    mask = PublicMask(HALF)
    updates = [Update(drawn(seed), LAYOUT) for seed in (5, 6)]
    sent = [mask.apply(update, context) for update, context in zip(updates, contexts, strict=True)]
    public = {f.name: getattr(contexts[0], f.name) for f in fields(RoundContext)}
    expected = mask.support(RoundContext(**public))
    for update, after in zip(updates, sent, strict=True):
        np.testing.assert_array_equal(after.support, expected)
        np.testing.assert_array_equal(after.values, update.values[expected])
    base = supports(mask, 1)
    assert base == supports(mask, 1)
    assert base != supports(mask, 2)
    assert base != supports(mask, 1, seed=3)
    assert base != supports(mask, 1, nonce=3)


def test_signs_do_not_matter_and_scales_only_within_a_tensor() -> None:
    adapter = drawn(2)
    scaled = np.concatenate([adapter[:10] * 100, -adapter[10:]])
    one, other = (PublicMask(HALF).support(known(3, a)) for a in (adapter, scaled))
    np.testing.assert_array_equal(one, other)


def test_a_norm_bound_still_holds_and_the_given_update_is_left_alone() -> None:
    values = drawn(3)
    update = Update(values.copy(), LAYOUT, norm_bound=float(np.linalg.norm(values)))
    after = PublicMask(HALF).apply(update, transform_context(drawn(1), 1, layout=LAYOUT))
    assert after.norm_bound == update.norm_bound
    np.testing.assert_array_equal(update.values, values)


@pytest.mark.parametrize("wrong", [{"rotate": 0}, {"rotate": 1.1}, {"sparsity_end": 2}, {"rotates": 0.1}])
def test_wrong_options_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        PublicMaskConfig(**wrong)


def shielded(**options: object) -> Defense:
    config = fedshield_exact.Config(clip=8.0, **options)
    return replace(fedshield_exact.build(config), trainer=fakes.DrawnTrainer())


def test_only_the_support_travels_and_the_rest_stays_as_it_was(tmp_path: Path) -> None:
    setup = fakes.make_setup(
        FederationSpec(silos=3, rounds=4, dropouts=(Dropout(round=2, silo=1, stage="upload"),)), shielded()
    )
    transcript = fakes.run(tmp_path / "run", setup)
    before = setup.initial
    counts = []
    for round in range(4):
        after = transcript.truth(round, "adapter")
        assert after is not None
        context = replace(known(round, before, 4, layout=fakes.LAYOUT), public=setup.public)
        found = PublicMask().support(context)
        sent = np.arange(fakes.LAYOUT.size) if found is None else found
        counts.append(len(sent))
        still = np.setdiff1d(np.arange(fakes.LAYOUT.size), sent)
        np.testing.assert_array_equal(after[still], before[still])
        silos = ("silo-0", "silo-2") if round == 2 else ("silo-0", "silo-1", "silo-2")
        total = sum(np.asarray(transcript.truth(round, name), np.float64) for name in silos)
        np.testing.assert_allclose(after, before + total / len(silos), atol=1e-6)
        # eight bits of a clip of 8: every sent value within a step of what was trained
        for index, name in enumerate(silos):
            trained = fakes.drawn(0, int(name[-1]), round)[sent]
            summand = transcript.truth(round, name)
            assert summand is not None
            assert np.abs(summand[sent] - trained).max() < 8 / 127 * (1 + 1e-5), index
        before = np.asarray(after, np.float32)
    # tensors of 24 and 20 values; the schedule at 2/4, 3/4 and 4/4 of the run: .3125, .40625, .5
    assert counts == [44, (24 - 8) + (20 - 6), (24 - 10) + (20 - 8), 12 + 10]


def test_bytes_fall_with_the_support(tmp_path: Path) -> None:
    transcript = fakes.run(tmp_path / "run", fakes.make_setup(FederationSpec(silos=3, rounds=4), shielded()))
    elements = [m.lengths[2] for m in transcript.messages() if m.stage == "upload" and m.sender == "silo-0"]
    assert elements == [-(-42 * -(-count // 4) // 8) for count in (44, 30, 26, 22)]


def test_the_defense_and_what_it_can_not_be_combined_with() -> None:
    defense = fedshield_exact.build(fedshield_exact.Config())
    parts = fill(defense)
    assert parts.aggregator.weight(77) == 1
    assert [type(t).__name__ for t in (*parts.transforms, *parts.encoders)] == ["PublicMask", "Quantise"]
    weights = Defense(transforms=defense.transforms, aggregator=Mean(weighted=False, of="weights"))
    with pytest.raises(UsageError, match="unsent"):
        fill(weights)
    with pytest.raises(UsageError, match="each brings its own channel"):
        compose([("fedshield-exact", defense), ("again", fedshield_exact.build(fedshield_exact.Config()))])
