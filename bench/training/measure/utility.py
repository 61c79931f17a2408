"""How useful a finished training is: the task's metrics after every round, the base model's beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import UsageError
from bench.defense.compose import Parts
from bench.federation.setup import Setup
from bench.spec.result import Utility
from bench.training.materials import Materials
from bench.training.measure.metrics import compute, mean_of
from bench.transcript.traffic import traffic
from bench.transcript.transcript import Transcript

RUN_VERSION = 1


def measure(setup: Setup, transcript: Transcript, materials: Materials) -> dict[str, Any]:
    with setup.meter.measure("utility"):
        rounds = range(transcript.committed() + 1)
        personal = setup.parts.plan(transcript.public).personal
        utility = _utility(transcript, materials, materials.pool.heldout, rounds, personal)
    trained = [t for r in range(transcript.committed() + 1) for t in transcript.training(r).values()]
    tokens = sum(t.tokens for t in trained)
    seconds = setup.meter.phases["train"].wall
    cost = traffic(transcript.messages(), len(transcript.public.silos), transcript.public.rounds)
    cost["phases"] = setup.meter.to_json()
    cost["peak_bytes"] = max(phase.peak for phase in setup.meter.phases.values())
    cost["trained_tokens"] = tokens
    cost["tokens_per_second"] = round(tokens / seconds, 1) if seconds else 0.0
    cost["parameters"] = transcript.public.adapter.size
    return {"version": RUN_VERSION, "utility": [u.model_dump(mode="json") for u in utility], "cost": cost}


def measure_validation(transcript: Transcript, parts: Parts, materials: Materials) -> Utility:
    """The task's first metric on the validation records, of the base model and of the final adapter. Raises UsageError
    where the pool has none."""
    ids = materials.pool.validation
    if not ids:
        raise UsageError("pool.validation is 0: without validation records there is nothing to tune on.")
    personal = parts.plan(transcript.public).personal
    return _utility(transcript, materials, ids, [transcript.committed()], personal)[0]


def models(transcript: Transcript, personal: NDArray[np.int64] | None, round: int) -> Iterator[NDArray[np.float32]]:
    """What the federation has after ``round``: the global adapter, or one per silo that has trained where some values
    are every silo's own (``Plan.personal``)."""
    shared = transcript.truth(round, "adapter")
    if shared is None or personal is None:
        yield np.asarray(transcript.final_adapter() if shared is None else shared)
        return
    for name in transcript.public.silos:
        own = next((o for r in range(round, -1, -1) if (o := transcript.truth(r, f"own-{name}")) is not None), None)
        if own is not None:
            adapter = np.array(shared)
            adapter[personal] = own[personal]
            yield adapter


def _utility(
    transcript: Transcript,
    materials: Materials,
    ids: Sequence[str],
    rounds: Sequence[int],
    personal: NDArray[np.int64] | None,
) -> list[Utility]:
    """The task's metrics on the records ``ids``: the base model's and those after each of ``rounds``, the last of which
    is the figure. Where every silo has a model of its own, the mean over silos."""
    tokens, gold = materials.tokens(ids), materials.gold(ids)
    clusters = np.array([materials.pool.clusters[i] for i in ids])
    model, names = materials.model, materials.corpus.task.metrics()

    def measured(adapter: Any) -> Any:
        model.set_adapter(adapter)
        stats = model.stats(tokens, materials.label_ids)
        rng = materials.streams.generator("utility")
        return compute(names, stats, tokens, gold, clusters, rng)

    base = measured(None)
    curve = [mean_of([measured(adapter) for adapter in models(transcript, personal, r)]) for r in rounds]
    return [
        Utility(**vars(last), base=start.value, curve=tuple(step[i].value for step in curve))
        for i, (start, last) in enumerate(zip(base, curve[-1], strict=True))
    ]


def learned(utility: tuple[Utility, ...]) -> bool:
    """True where the first metric is better than the base model's."""
    first = utility[0]
    return first.value < first.base if first.better == "lower" else first.value > first.base
