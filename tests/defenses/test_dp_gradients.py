"""Clipped sums of per-record gradients: both ways to them, against a loop over records, and the models they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import SiloBenchError, UsageError
from bench.core.tokens import Tokens
from bench.model.lora import LoraModel
from bench.spec.run import LoraSpec
from defenses.trainers.dp_sgd import DPSGD
from defenses.trainers.per_record import Fast, Outer, Whole
from tests.defenses.dp_audit import (
    HUGE,
    INFINITE,
    NORMAL,
    NOT_A_NUMBER,
    Line,
    flat_sum,
    little_llama,
    make_tokens,
    marked,
)

WAYS = pytest.mark.parametrize("gradients", ["fast", "opacus"])


def trainer(clip: float = 1.0, microbatch: int = 8, gradients: str = "fast", **more) -> DPSGD:
    return DPSGD(None, 1.0, clip, None, microbatch, gradients=gradients, **more)


def one_by_one(model, tokens: Tokens, clip: float) -> np.ndarray:
    """The clipped sum with nothing but autograd, a record at a time."""
    total = 0.0
    for row in range(len(tokens)):
        loss = model.losses(tokens.take([row])).sum()
        gradients = torch.autograd.grad(loss, model.parameters())
        flat = torch.cat([g.double().ravel() for g in gradients])
        total = total + flat * min(1.0, clip / float(flat.norm()))
    return np.asarray(total)


def assert_same(found: np.ndarray, expected: np.ndarray, relative: float = 1e-5) -> None:
    assert np.linalg.norm(expected) > 0
    assert np.linalg.norm(found - expected) <= relative * np.linalg.norm(expected)
    assert np.abs(found - expected).max() <= relative * np.abs(expected).max()


LENGTHS = [5, 17, 3, 9, 30, 2, 12]


@WAYS
@pytest.mark.parametrize(("clip", "microbatch"), [(0.3, 3), (3.0, 64), (1e6, 1)])
def test_clipped_sums_equal_a_loop_over_records(gradients, clip, microbatch) -> None:
    model, tokens = little_llama(), make_tokens(LENGTHS)
    found = flat_sum(trainer(clip, microbatch, gradients), model, tokens, range(7))
    assert_same(found, one_by_one(model, tokens, clip))


@given(st.lists(st.integers(2, 40), min_size=1, max_size=6), st.floats(0.01, 20), st.integers(1, 7), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_whatever_the_records(lengths, clip, microbatch, seed) -> None:
    model, tokens = LLAMA, make_tokens(lengths, seed)
    assert_same(
        flat_sum(trainer(clip, microbatch), model, tokens, range(len(lengths))), one_by_one(model, tokens, clip)
    )


LLAMA = little_llama()


@pytest.mark.parametrize("rank", [1, 16])
def test_short_records_and_high_ranks_are_kept_as_factors(rank) -> None:
    """A gradient of out * in values is formed at once where T * (out + in) is more, else only summed."""
    model, tokens = little_llama(rank=rank), make_tokens([4, 3, 4])
    forms = []
    with trainer().prepared(model) as (_, backend):
        model.losses(tokens).sum().backward()
        forms = [type(g) for g in backend.collect(3)]
    assert set(forms) == ({Whole} if rank == 1 else {Outer})
    assert_same(flat_sum(trainer(0.3), model, tokens, range(3)), one_by_one(model, tokens, 0.3))


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(reentrant) -> None:
    model, tokens = little_llama(), make_tokens(LENGTHS)
    expected = one_by_one(model, tokens, 0.5)
    base = model.module.get_base_model()
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.module.enable_input_require_grads()
    base.train()
    calls = []
    layer = base.model.layers[0].self_attn
    hook = layer.register_forward_hook(lambda *_: calls.append(1))
    found = flat_sum(trainer(0.5, 64), model, tokens, range(7))
    hook.remove()
    assert len(calls) == 2, "the layer was not computed a second time: nothing was checkpointed"
    assert_same(found, expected)


@WAYS
def test_a_base_model_in_bfloat16(gradients) -> None:
    """The adapter stays in float32; the sum is that of a loop up to what batching changes in bfloat16."""
    model = little_llama(dtype=torch.bfloat16)
    tokens = make_tokens([6, 6, 6])
    found = flat_sum(trainer(0.5, 8, gradients), model, tokens, range(3))
    assert_same(found, one_by_one(model, tokens, 0.5), 0.05)
    alone = sum(flat_sum(trainer(0.5, 1, gradients), model, tokens, [row]) for row in range(3))
    assert_same(alone, one_by_one(model, tokens, 0.5))


@WAYS
def test_every_record_is_cut_to_the_clip_over_all_values_together(gradients) -> None:
    for row in range(3):
        alone = flat_sum(trainer(0.01, gradients=gradients), LLAMA, make_tokens([5, 17, 3]), [row])
        assert np.linalg.norm(alone) == pytest.approx(0.01, rel=1e-5)


@WAYS
def test_what_is_not_finite_counts_as_nothing_and_spoils_nothing(gradients) -> None:
    own = trainer(0.5, gradients=gradients)
    tokens = marked([NORMAL, NOT_A_NUMBER, NORMAL, INFINITE])
    whole = flat_sum(own, Line(), tokens, range(4))
    np.testing.assert_allclose(whole, flat_sum(own, Line(), tokens, [0, 2]), atol=1e-7)
    assert whole.any()
    assert not flat_sum(own, Line(), tokens, [1, 3]).any()
    huge = flat_sum(own, Line(), marked([HUGE]), [0])
    assert np.linalg.norm(huge) == pytest.approx(0.5, rel=1e-5)


def test_factors_that_are_not_finite_are_left_out_too() -> None:
    dy, x = torch.ones(3, 1, 4), torch.ones(3, 1, 4)
    dy[1] = float("nan")
    x[2] = float("inf")
    gradient = Outer(dy, x)
    assert torch.isfinite(gradient.norms()).tolist() == [True, False, False]
    assert gradient.norms()[0] == 4.0
    assert torch.equal(gradient.weighted(torch.tensor([0.5, 0.0, 0.0]).double()), torch.full((4, 4), 0.5))


@WAYS
def test_no_record_gives_a_sum_of_zeros(gradients) -> None:
    assert not flat_sum(trainer(gradients=gradients), LLAMA, make_tokens([4, 5]), []).any()


def test_halves_count_the_records_within_the_clip() -> None:
    """Records of norm 0.5 and 2 or so, and one that is not finite: none of them moves the count by more than a half."""
    line, tokens = Line(), marked([NORMAL, NORMAL, NOT_A_NUMBER])
    norms = [np.linalg.norm(flat_sum(trainer(1e9), line, tokens, [row])) for row in (0, 1)]
    for clip, expected in ((max(norms) * 1.01, 0.5), (float(np.mean(norms)), -0.5), (min(norms) * 0.99, -1.5)):
        own = trainer(float(clip))
        with own.prepared(line) as (_, backend):
            batch = own.clipped_sum(backend, line, tokens, np.arange(3), own.clip)
        assert batch.halves == expected


# what is left behind, and what is refused


def traces(model) -> list[str]:
    left = [name for p in model.module.parameters() for name in vars(p) if "grad" in name or "counter" in name]
    left += [f"hook on {n}" for n, m in model.module.named_modules() if m._forward_hooks or m._backward_hooks]
    left += [f"forward of {n}" for n, m in model.module.named_modules() if "forward" in vars(m)]
    left += [f"training mode of {n}" for n, m in model.module.named_modules() if m.training]
    left += ["frozen" for p in model.parameters() if not p.requires_grad]
    return left + ["gradient" for p in model.parameters() if p.grad is not None]


@WAYS
@pytest.mark.parametrize("factors", ["both", "b", "alternate"])
def test_nothing_stays_on_the_shared_model(gradients, factors) -> None:
    model = little_llama()
    own = trainer(gradients=gradients, factors=factors)
    assert traces(model) == []
    flat_sum(own, model, make_tokens([4, 5]), [0, 1])
    assert traces(model) == []
    with pytest.raises(KeyError), own.prepared(model):
        raise KeyError
    assert traces(model) == []


@WAYS
def test_gradients_of_other_training_do_not_count(gradients) -> None:
    model, tokens = little_llama(), make_tokens([4, 5])
    model.losses(tokens).mean().backward()
    found = flat_sum(trainer(0.3, gradients=gradients), model, tokens, [0, 1])
    assert_same(found, one_by_one(model, tokens, 0.3))


def test_only_the_adapters_own_maps_change_mode() -> None:
    model = little_llama()
    with trainer(gradients="opacus").prepared(model):
        training = {n.split(".")[-2] for n, m in model.module.named_modules() if m.training}
    assert training == {"lora_A", "lora_B"}


class Flattened(Line):
    """Hands all records to the map as one."""

    def losses(self, tokens: Tokens) -> torch.Tensor:
        return self.module(self._table[tokens.ids[:, 0]][None]).square().sum(2)[0]


class Aside(Line):
    """Uses the map's weight once more, outside the map."""

    def losses(self, tokens: Tokens) -> torch.Tensor:
        return super().losses(tokens) + self.module.weight.sum()


class Unused(Line):
    def losses(self, tokens: Tokens) -> torch.Tensor:
        return torch.ones(len(tokens), requires_grad=True)


@pytest.mark.parametrize(
    ("model", "words"),
    [(Flattened, "a record per row"), (Aside, "outside its linear map"), (Unused, "no part in the loss")],
)
def test_a_model_whose_records_can_not_be_told_apart_is_refused(model, words) -> None:
    with pytest.raises(SiloBenchError, match=words):
        flat_sum(trainer(), model(), marked([NORMAL] * 4), range(4))


def test_opacus_refuses_them_as_well() -> None:
    with pytest.raises(SiloBenchError, match="per-record gradients"):
        flat_sum(trainer(gradients="opacus"), Flattened(), marked([NORMAL] * 4), range(4))


class Biased(torch.nn.Linear):
    """A class of its own, which may compute anything."""


@pytest.mark.parametrize(
    "module",
    [
        torch.nn.Linear(64, 32),
        Biased(64, 32, bias=False),
        torch.nn.Sequential(torch.nn.Linear(64, 32, bias=False), torch.nn.LayerNorm(32)),
        torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(64, 32, bias=False)),
    ],
    ids=["bias", "subclass", "layer norm", "parametrised"],
)
def test_a_trainable_value_that_the_fast_way_does_not_cover_is_refused(module) -> None:
    model = Line()
    model.module = module
    model.parameters = lambda: list(module.parameters())  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="gradients=opacus"):
        flat_sum(trainer(), model, marked([NORMAL]), [0])
    assert not [n for n, m in module.named_modules() if "forward" in vars(m)]


@WAYS
def test_what_would_be_trained_without_being_clipped_is_refused(gradients) -> None:
    model = little_llama()
    norm = model.module.get_base_model().model.norm.weight
    norm.requires_grad_(True)
    with pytest.raises(SiloBenchError, match=r"norm\.weight would be trained without being clipped"):
        flat_sum(trainer(gradients=gradients), model, make_tokens([4]), [0])


def test_a_map_that_is_used_twice_gives_one_gradient_of_a_record() -> None:
    class Twice(Line):
        def losses(self, tokens: Tokens) -> torch.Tensor:
            rows = self._table[tokens.ids[:, 0]]
            return (self.module(rows) * self.module(rows.flip(1))).sum(1)

    tokens = marked([NORMAL] * 5)
    assert_same(flat_sum(trainer(0.5), Twice(), tokens, range(5)), one_by_one(Twice(), tokens, 0.5))


def test_pieces_of_both_forms_add_up() -> None:
    backend = Fast()
    weight = torch.nn.Parameter(torch.zeros(2, 3))
    backend._parameters = [weight]
    rng = torch.Generator().manual_seed(0)
    pairs = [(torch.randn(2, t, 3, generator=rng), torch.randn(2, t, 2, generator=rng)) for t in (1, 4)]
    expected = sum(torch.einsum("nto,nti->noi", dy, x) for x, dy in pairs)
    for x, dy in pairs:
        backend.keep(id(weight), weight, x, dy)
    (gradient,) = backend.collect(2)
    torch.testing.assert_close(gradient.weighted(torch.ones(2)), expected.sum(0))
    torch.testing.assert_close(gradient.norms(), expected.flatten(1).double().norm(dim=1))


def test_the_packaged_model_as_a_silo_has_it() -> None:
    from bench.assets.assets import Assets
    from bench.spec.run import ModelSpec

    spec = ModelSpec(name="tiny")
    model = LoraModel.load(Assets(quiet=True).model(spec).path, spec, LoraSpec(rank=4), "cpu")
    model.set_adapter(np.random.default_rng(0).normal(0, 0.05, model.layout.size))
    tokens = make_tokens([9, 4, 20], vocabulary=model.vocab_size)
    assert_same(flat_sum(trainer(0.2), model, tokens, range(3)), one_by_one(model, tokens, 0.2))
