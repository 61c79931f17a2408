"""What a DP-SGD trainer must do, as checks that any copy of it can be put to; and small models to do so with.

Every statistical check fails a correct trainer at most once in 10^6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from bench.core.streams import SecretStreams, Streams
from bench.core.tokens import Tokens
from bench.defense.parts import Trainer, Training, TrainJob
from bench.model import loading
from bench.model.lora import LoraModel
from bench.privacy import epsilon
from bench.spec.run import LocalSpec, LoraSpec
from defenses.trainers.dp_sgd import DPSGD
from defenses.trainers.private import PrivateTrainer

#: chance of a false alarm of one check
ALARM = 1e-7
NORMAL, HUGE, NOT_A_NUMBER, INFINITE = 1.0, 1e30, float("nan"), float("inf")


def make_tokens(lengths: Sequence[int], seed: int = 0, vocabulary: int = 64) -> Tokens:
    rng = np.random.default_rng(seed)
    width = max(lengths, default=2)
    ids = rng.integers(4, vocabulary, (len(lengths), width)).astype(np.int32)
    size = np.array(lengths, np.int32)
    inside = np.arange(width) < size[:, None]
    predicted = inside & (np.arange(width) > 0)
    return Tokens(ids * inside, size, predicted, np.full(len(lengths), -1, np.int32))


def little_llama(seed: int = 0, rank: int = 2, dtype: torch.dtype = torch.float32) -> LoraModel:
    """Two layers of random weights with a LoRA adapter, B not zero."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.2,
        )  # fmt: skip
        base = LlamaForCausalLM(config).to(dtype).requires_grad_(False).eval()
    cpu = torch.device("cpu")
    model = LoraModel(loading.add_lora(base, LoraSpec(rank=rank, alpha=4.0), cpu), None, cpu)
    model.set_adapter(np.random.default_rng(seed).normal(0, 0.3, model.layout.size))
    return model


class Line:
    """The interface of ``LoraModel`` over one linear map: quick enough for thousands of steps.

    A record is a row of inputs chosen by its first token, its loss the squared output times a factor chosen by its
    second token (1 for most, not finite for 2 and 3).
    """

    def __init__(self, width: int = 64) -> None:
        self.module = torch.nn.Linear(width, 32, bias=False).requires_grad_(True)
        rng = np.random.default_rng(0)
        with torch.no_grad():
            self.module.weight.copy_(torch.from_numpy(rng.normal(size=(32, width))))
        self._table = torch.from_numpy(rng.normal(size=(64, width))).float()

    def parameters(self) -> list[torch.nn.Parameter]:
        return [self.module.weight]

    def losses(self, tokens: Tokens) -> torch.Tensor:
        factors = np.ones(64)
        factors[1:4] = HUGE, NOT_A_NUMBER, INFINITE
        scale = torch.from_numpy(factors[tokens.ids[:, 1]]).float()
        return self.module(self._table[tokens.ids[:, 0]]).square().sum(1) * scale

    def values(self) -> NDArray[np.float32]:
        return np.concatenate([p.detach().numpy().ravel() for p in self.parameters()])


def marked(factors: Sequence[float]) -> Tokens:
    """Records for ``Line`` with the given loss factors."""
    tokens = make_tokens([2] * len(factors), seed=1)
    marks = {NORMAL: 0, HUGE: 1, INFINITE: 3}
    tokens.ids[:, 1] = [marks.get(f, 2) for f in factors]
    return tokens


def run_job(
    trainer: Trainer,
    model: Any,
    tokens: Tokens,
    local: LocalSpec,
    nominal: int,
    round: int = 0,
    rounds: int = 3,
    state: dict[str, Any] | None = None,
) -> Training:
    order = Streams(1).generator("silo", 0, round)
    secret, state = SecretStreams("silo-0"), {} if state is None else state
    return trainer.train(TrainJob(model, tokens, local, local.lr, round, rounds, nominal, order, secret, state))


def sgd(steps: int, batch: int) -> LocalSpec:
    return LocalSpec(steps=steps, batch=batch, optimizer="sgd", lr=1.0)


def flat_sum(
    trainer: PrivateTrainer, model: Any, tokens: Tokens, rows: Sequence[int], round: int = 0
) -> NDArray[np.float64]:
    with trainer.prepared(model, round) as (_, backend):
        batch = trainer.clipped_sum(backend, model, tokens, np.asarray(rows, np.int64), trainer.clip)
    return np.concatenate([p.double().numpy().ravel() for p in batch.total])


def check_sensitivity(make: Callable[..., DPSGD]) -> None:
    """Removing any one record changes the sum by at most the clip, also when records are built to break that."""
    model, tokens = little_llama(), make_tokens([3] * 12 + [40])
    tokens.ids[:12] = tokens.ids[0]
    largest = max(np.linalg.norm(flat_sum(DPSGD(None, 1.0, 1e9), model, tokens, [row])) for row in (0, 12))
    # records that all lie far above the clip, in many tensors
    _removals(make(sigma=1.0, clip=float(largest) / 100, microbatch=3), model, make_tokens([3, 9, 5, 4]))
    # a long record whose length must not scale the gradients of 12 equal short ones, none of which reaches the clip
    _removals(make(sigma=1.0, clip=1.01 * float(largest), microbatch=64), model, tokens)
    tokens = marked([NORMAL] * 8 + [HUGE, NOT_A_NUMBER, INFINITE, HUGE])
    _removals(make(sigma=1.0, clip=0.5, microbatch=5), Line(), tokens)


def _removals(trainer: PrivateTrainer, model: Any, tokens: Tokens) -> None:
    everyone = list(range(len(tokens)))
    whole = flat_sum(trainer, model, tokens, everyone)
    assert np.isfinite(whole).all(), "a record that is not finite spoils the sum"
    for record in everyone:
        rest = flat_sum(trainer, model, tokens, [r for r in everyone if r != record])
        change = np.linalg.norm(whole - rest)
        assert change <= trainer.clip * (1 + 1e-5), f"record {record} changes the sum by {change / trainer.clip} clips"


def check_noise(make: Callable[..., DPSGD], share: float = 1.0) -> None:
    """A silo without records uploads noise of the stated size, Gaussian, fresh for every value, step, round and run,
    also where all global generators stand where they stood. share: the noise's variance in units of the stated."""
    sigma, clip, batch, nominal, steps = 1.7, 0.5, 4, 16, 5
    nobody = marked([])
    trainer = make(sigma=sigma, clip=clip)
    changes = []
    for round in (0, 1, 0):
        model = Line()
        before = model.values().astype(np.float64)
        with torch.random.fork_rng([]):
            torch.manual_seed(7)
            training = run_job(trainer, model, nobody, sgd(steps, batch), nominal, round)
        assert [m.params["steps"] for m in training.mechanisms] == [steps], "empty batches must be counted"
        assert len(training.batches) == training.steps == steps, "empty batches must be steps"
        changes.append(model.values() - before)
    size = changes[0].size
    expected = sigma * clip / batch * np.sqrt(steps * share)  # lr 1, divided by the expected batch of 4, steps add up
    for change in changes:
        squares = float(np.square(change / expected).sum())
        low, high = stats.chi2.ppf([ALARM / 2, 1 - ALARM / 2], size)
        assert low < squares < high, f"noise of {np.sqrt(squares / size):.3f} times the stated size"
        assert stats.kstest(change / expected, "norm").pvalue > ALARM, "noise is not Gaussian"
    bound = stats.norm.isf(ALARM / 2) / np.sqrt(size)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        correlation = float(np.corrcoef(changes[first], changes[second])[0, 1])
        assert abs(correlation) < bound * 1.1, f"noise of two rounds or runs correlates: {correlation:.3f}"


def check_sampling(make: Callable[..., DPSGD]) -> None:
    """Batches are Poisson samples at the stated rate, secret (not a function of public seeds), fresh each round."""
    records, nominal, batch, steps = 24, 30, 8, 300
    tokens = marked([NORMAL] * records)
    trainer = make(sigma=1.0, clip=1e-3, microbatch=64)
    drawn = []
    for round in (0, 1, 0):
        training = run_job(trainer, Line(), tokens, sgd(steps, batch), nominal, round)
        joined = np.zeros((steps, records), bool)
        for i, rows in enumerate(training.batches):
            assert len(set(rows)) == len(rows)
            joined[i, list(rows)] = True
        drawn.append(joined)
    rate = training.mechanisms[0].params["rate"]
    assert rate == batch / nominal, "the rate is not the batch over the public size"
    _check_bernoulli(np.concatenate(drawn), rate)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        agreeing = int((drawn[first] == drawn[second]).sum())
        _within(agreeing, drawn[0].size, rate**2 + (1 - rate) ** 2, "two rounds or runs draw alike")


def _check_bernoulli(joined: NDArray[np.bool_], rate: float) -> None:
    steps, records = joined.shape
    _within(int(joined.sum()), joined.size, rate, "overall rate")
    for record in range(records):
        _within(int(joined[:, record].sum()), steps, rate, f"rate of record {record}")
        _within(
            int((joined[:, record] & joined[:, record - 1]).sum()), steps, rate**2, f"records {record - 1}, {record}"
        )
        _within(int((joined[1:, record] & joined[:-1, record]).sum()), steps - 1, rate**2, "neighbouring steps", 30)
    sizes = joined.sum(1)
    typical = round(records * rate)
    _within(int((sizes == typical).sum()), steps, float(stats.binom.pmf(typical, records, rate)), "batches of one size")
    _within(int((sizes > typical + 3).sum()), steps, float(stats.binom.sf(typical + 3, records, rate)), "large batches")


def _within(count: int, trials: int, chance: float, what: str, loose: float = 1.0) -> None:
    """``count`` of ``trials`` is no surprise at ``chance``. loose: for trials that are not quite independent."""
    low, high = stats.binom.ppf([ALARM / (200 * loose), 1 - ALARM / (200 * loose)], trials, chance)
    assert low <= count <= high, f"{what}: {count} of {trials} at {chance:.4f}"


def check_division(make: Callable[..., DPSGD]) -> None:
    """The sum is divided by the expected batch of public quantities, not by how many records there were."""
    tokens, nominal = marked([NORMAL] * 7), 10
    trainer = make(sigma=1e-9, clip=0.5)
    model = Line()
    before = model.values().astype(np.float64)
    total = flat_sum(trainer, model, tokens, range(7))
    training = run_job(trainer, model, tokens, sgd(1, 16), nominal)
    assert training.batches == (tuple(range(7)),)
    far = np.abs(before - model.values() - total / nominal).max()
    assert far < 1e-6, "the sum is not divided by the public expected batch"


def check_accounting(make: Callable[..., DPSGD]) -> None:
    """What three rounds really added in noise costs no more than the budget, whatever the log says."""
    target, batch, steps, rounds = 8.0, 4, 2, 3
    trainer = make(sigma=None, epsilon=target, clip=0.5)
    squares, size = 0.0, 0
    for round in range(rounds):
        model = Line()
        before = model.values().astype(np.float64)
        run_job(trainer, model, marked([]), sgd(steps, batch), batch, round, rounds)
        change = (model.values() - before) * batch / trainer.clip
        squares, size = squares + float(np.square(change).sum()) / steps, size + change.size
    largest = float(np.sqrt(squares / stats.chi2.ppf(ALARM, size)))  # a step's sigma is hardly ever above
    spent = epsilon(((1.0, round_up(largest), rounds * steps),), 1 / (10 * batch), coarse=True)
    assert spent <= target, f"the noise is that of epsilon {spent:.1f}, not {target}"


def round_up(sigma: float) -> float:
    return float(np.ceil(sigma * 100) / 100)


CHECKS = (check_sensitivity, check_noise, check_sampling, check_division, check_accounting)
