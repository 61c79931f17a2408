"""How useful a finished training is: the task's metrics after every round, the base model's beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import UsageError
from bench.core.tokens import TokenStats
from bench.defense.compose import Parts
from bench.federation.setup import Setup
from bench.model.labels import with_labels
from bench.spec.result import GAIN, Utility
from bench.training.materials import Materials
from bench.training.measure.metrics import MetricValue, compute, mean_of, text_gain
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
    """The task's metrics on the records ``ids``, and the gain on their text: the base model's and those after each of
    ``rounds``, the last of which is the figure. Where every silo has a model of its own, the mean over silos."""
    tokens, gold = materials.tokens(ids), materials.gold(ids)
    clusters = np.array([materials.pool.clusters[i] for i in ids])
    model, names = materials.model, materials.corpus.task.metrics()

    def stats(adapter: NDArray[np.float32] | None) -> TokenStats:
        model.set_adapter(adapter)
        return with_labels(model, tokens, materials.label_rows, materials.label_prices)

    untrained = stats(None)

    def measured(adapter: NDArray[np.float32] | None) -> list[MetricValue]:
        found = untrained if adapter is None else stats(adapter)
        rng = materials.streams.generator("utility")
        figures = compute(names, found, tokens, gold, clusters, rng)
        return [*figures, text_gain(found, untrained, tokens, clusters)]

    base = measured(None)
    curve = [mean_of([measured(adapter) for adapter in models(transcript, personal, r)]) for r in rounds]
    return [
        Utility(**vars(last), base=start.value, curve=tuple(step[i].value for step in curve))
        for i, (start, last) in enumerate(zip(base, curve[-1], strict=True))
    ]


def learned(utility: tuple[Utility, ...]) -> bool:
    """True where the gain on the text, over the base model, has an interval above zero."""
    gain = next((one for one in utility if one.name == GAIN), None)
    return gain is not None and gain.low is not None and gain.low > 0
