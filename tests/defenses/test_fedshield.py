"""FedShield as a whole against the same averaging in clear, its options, and what the named defenses are made of."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from bench.conformance.fixtures import transform_context
from bench.core.errors import UsageError
from bench.core.update import Array, Layout, Update
from bench.defense.aggregator import Aggregator
from bench.defense.compose import Defense, compose, fill
from bench.defense.defaults.mean import Mean
from bench.defense.defaults.plain import PlainChannel
from defenses import dp_sgd, fedavg, fedshield, prune
from tests.defense.toys import public_of
from tests.defenses.exchange import one_round

LAYOUT = Layout(("q.A", "q.B", "v.A", "v.B"), ((8, 96), (96, 8), (8, 96), (32, 8)))
SIZES = (10, 20, 70)


def updates(seed: int) -> tuple[Array, list[Array]]:
    rng = np.random.default_rng(seed)
    base = rng.uniform(-0.1, 0.1, LAYOUT.size).astype(np.float32)
    return base, [rng.normal(0, 0.02, LAYOUT.size).astype(np.float32) for _ in SIZES]


def step(defense: Defense, round: int = 0, rounds: int = 1, seed: int = 5) -> tuple[Array, Array]:
    """(the opened sum, the next global adapter) of one round of given updates."""
    parts = fill(defense)
    base, deltas = updates(seed)
    aggregator: Aggregator = parts.aggregator
    weights = [aggregator.weight(size) for size in SIZES]
    public = public_of(weights)
    summands = []
    for delta, weight in zip(deltas, weights, strict=True):
        update = Update(delta, LAYOUT, weight)
        for transform in parts.transforms:
            update = transform.apply(update, transform_context(base, round, rounds))
        summands.append(np.asarray(aggregator.summand(update, base, public).values, np.float32))
    run = one_round(parts.channel, LAYOUT, summands)
    total = next(iter(run.opened.values()))
    return total, aggregator.apply(total, public.silos, base, public)


def test_without_pruning_it_is_unweighted_fedavg() -> None:
    config = fedshield.Config(sparsity_start=0, sparsity_end=0)
    total, adapter = step(fedshield.build(config))
    plain_total, plain_adapter = step(Defense(aggregator=Mean(weighted=False, of="weights")))
    assert np.abs(total - plain_total).max() < 1e-6
    assert np.abs(adapter - plain_adapter).max() < 1e-6
    _, deltas_adapter = step(Defense(aggregator=Mean(weighted=False, of="delta")))
    assert np.abs(adapter - deltas_adapter).max() < 1e-6
    _, weighted = step(fedavg.build(fedavg.Config()))
    assert np.abs(adapter - weighted).max() > 1e-3


@pytest.mark.parametrize("round", [0, 1, 2])
@pytest.mark.parametrize("holder", ["silos", "server"])
def test_with_pruning_it_is_that_pruning_in_clear(holder, round) -> None:
    total, adapter = step(fedshield.build(fedshield.Config(key_holder=holder)), round, 3)
    plain_total, plain_adapter = step(prune.build(prune.Config()), round, 3)
    assert np.abs(total - plain_total).max() < 1e-6
    assert np.abs(adapter - plain_adapter).max() < 1e-6
    _, unpruned = step(prune.build(prune.Config(sparsity_start=0, sparsity_end=0)), round, 3)
    assert np.abs(adapter - unpruned).max() > 1e-2


def test_the_key_holder_opens() -> None:
    assert fedshield.build(fedshield.Config()).channel.opener == "silos"
    assert fedshield.build(fedshield.Config(key_holder="server")).channel.opener == "server"


@pytest.mark.parametrize("wrong", [{"key_holder": "outsider"}, {"sparsity_end": 2}, {"scale": 1}])
def test_wrong_options_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        fedshield.Config(**wrong)


def test_fedavg_is_all_defaults() -> None:
    assert fedavg.build(fedavg.Config()) == Defense()
    parts = fill(fedavg.build(fedavg.Config()))
    assert isinstance(parts.channel, PlainChannel)
    assert parts.aggregator.weight(30) == 30
    assert parts.promises == ()


def test_dp_sgd_composes_with_fedshield_and_two_channels_do_not() -> None:
    private = dp_sgd.build(dp_sgd.Config(sigma=1.0))
    shield = fedshield.build(fedshield.Config())
    both = fill(compose([("dp-sgd", private), ("fedshield", shield)]))
    assert both.trainer is private.trainer
    assert both.channel is shield.channel
    assert len(both.transforms) == 1
    assert len(both.promises) == 1
    with pytest.raises(UsageError, match="'fedshield' and 'fedshield' can't be combined"):
        compose([("fedshield", shield), ("fedshield", shield)])
    with pytest.raises(UsageError, match="aggregator"):
        compose([("prune", prune.build(prune.Config())), ("fedshield", shield)])


def test_importing_the_named_defenses_imports_nothing_heavy() -> None:
    code = (
        "import sys, defenses.fedavg, defenses.fedshield, defenses.prune, defenses.dp_sgd, bench.privacy;"
        "heavy = ('torch', 'tenseal', 'opacus', 'transformers', 'scipy', 'dp_accounting');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
