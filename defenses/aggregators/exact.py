"""Means of products of LoRA factors. The mean of the silos' B_i A_i is not the product of their mean B and mean A.

With silos of weight w_i (W in all), each of which trained factors B_i, A_i from common ones B, A, averaging whole
models would give a target's weight the mean M = sum w_i B_i A_i / W in place of B A. Both aggregators here make it so,
to rounding. The global adapter is wide (``bench.model.products``): factors to go on from, and for each target a dense
change D of the frozen weight.

* ``Folded``, FedEx-LoRA (Singhal et al. 2025, "FedEx-LoRA: Exact Aggregation for Federated and Efficient Fine-Tuning of
  Foundation Models"): silos go on from the mean factors, and the residual M - mean(B) mean(A) is added to D.
* ``Stacked``, FLoRA (Wang et al. 2024, "FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous Low-Rank
  Adaptations"): the silos' factors are stacked, [w_1 B_1 ... w_n B_n] [A_1; ...; A_n] / W = M is added to D, and silos
  begin anew with B = 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.core.update import Array, Layout, Update
from bench.defense.aggregator import Aggregator, Plan
from bench.defense.flow import Flow, name_of
from bench.defense.public import Public
from bench.model.products import dense, factors, initial_factors, with_products

Float = NDArray[np.float64]


class _Exact(Aggregator):
    """What both have in common. ``weighted``: by nominal size, else every silo counts as one."""

    def __init__(self, weighted: bool = True) -> None:
        self.weighted = weighted

    def follow(self, flow: Flow) -> Flow:
        name = name_of(self)
        whole = (
            f"the aggregator {name} sums products of both factors, to which every coordinate belongs (where one factor "
            "is frozen, the mean of the factors is exact by itself): they can't be combined"
        )
        tied = f"{name} makes factors and dense changes that belong together: they can't be combined"
        flow = flow.barring("sparse", whole).barring("moving", tied)
        return flow.unbound(self, f"{name} makes summands of which a bound on the update says nothing")

    def weight(self, nominal_size: int) -> int:
        return nominal_size if self.weighted else 1


class Folded(_Exact):
    """A summand is w_i times (change of the factors; change of the product, (B_i A_i - B A) / ``unit``).

    So every channel that sums gives the mean factors and M, and whoever opens the sum learns these and no silo's own
    factors. What it costs is a dense matrix per target.
    """

    def plan(self, adapter: Layout, silos: Sequence[str]) -> Plan:
        return Plan(with_products(adapter), with_products(adapter))

    def summand(self, update: Update, global_adapter: Array, public: Public) -> Update:
        adapter, before = update.layout, global_adapter.astype(np.float64)
        after = before[: adapter.size] + update.values
        values = np.empty(len(global_adapter), dtype=np.float32)
        values[: adapter.size] = update.values
        both = zip(factors(adapter, before), factors(adapter, after), strict=True)
        for change, ((a, b), (own_a, own_b)) in zip(dense(adapter, values), both, strict=True):
            change[...] = (own_b @ own_a - b @ a) / unit(a, b)
        values *= np.float32(update.weight)
        return replace(update, values=values, layout=with_products(adapter), norm_bound=None)

    def apply(self, total: NDArray[np.floating], silos: Sequence[str], global_adapter: Array, public: Public) -> Array:
        adapter, before = public.adapter, global_adapter.astype(np.float64)
        mean = total.astype(np.float64) / _sum(public, silos)
        after = np.zeros(len(global_adapter), dtype=np.float32)
        # rounded first: the residual is that of the factors that silos will hold
        after[: adapter.size] = before[: adapter.size] + mean[: adapter.size]
        both = zip(factors(adapter, before), factors(adapter, after.astype(np.float64)), strict=True)
        parts = zip(dense(adapter, before), dense(adapter, mean), dense(adapter, after), both, strict=True)
        for old, moved, new, ((a, b), (mean_a, mean_b)) in parts:
            new[...] = old + b @ a + moved * unit(a, b) - mean_b @ mean_a
        return after

    def implied_total(self, before: Array, after: Array, silos: Sequence[str], public: Public) -> Float:
        """To the rounding of D: every coordinate of the sum follows from the two adapters."""
        adapter, one, two = public.adapter, before.astype(np.float64), after.astype(np.float64)
        mean = two - one
        both = zip(factors(adapter, one), factors(adapter, two), strict=True)
        for change, ((a, b), (mean_a, mean_b)) in zip(dense(adapter, mean), both, strict=True):
            change[...] = (change + mean_b @ mean_a - b @ a) / unit(a, b)
        return np.asarray(mean * _sum(public, silos))

    def implied_adapter(
        self, summand: NDArray[np.floating], weight: int, global_adapter: Array, public: Public
    ) -> Array:
        own = global_adapter.astype(np.float64)
        size = public.adapter.size
        own[:size] += summand[:size] / weight
        return own.astype(np.float32)


def unit(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """What products are divided by in a sum, so that one quantiser's grid suits them and the factors: the largest norm
    of a column of the global A plus that of a row of the global B. If no factor moves by more than m in a value, a
    product of rank r moves by at most sqrt(r) m + r m^2 / unit of this. 1 where both are zero."""
    most = float(np.linalg.norm(a, axis=0).max() + np.linalg.norm(b, axis=1).max())
    return most or 1.0


class Stacked(_Exact):
    """A summand is a stack of one slot per silo, of an adapter's layout each. Silo i's holds w_i times (A_i - A; B_i)
    in its own and 0 in all others, so that the plain sum of the summands is the stack of all factors.

    Whoever opens the sum reads every silo's own factors in it, however well it was protected on its way. As in the
    paper that is everybody: the server sends the stack to all silos, who fold it in themselves (``opener``). Where a
    channel has the server open the sum instead, it folds it in and sends the result.

    After every round A is drawn anew, from a generator that is seeded with the former A's SHA-256: all who know the
    first A, which is public, know them all.
    """

    opener = "silos"

    def follow(self, flow: Flow) -> Flow:
        new = (
            f"with {name_of(self)} every round trains new factors, to which what is owed of old ones does not belong: "
            "put its feedback off"
        )
        return super().follow(flow).barring("owing", new)

    def plan(self, adapter: Layout, silos: Sequence[str]) -> Plan:
        names = tuple(f"{silo}.{name}" for silo in silos for name in adapter.names)
        own = np.arange(adapter.size, dtype=np.int64)
        return Plan(
            summed=Layout(names, adapter.shapes * len(silos)),
            state=with_products(adapter),
            slots={silo: own + adapter.size * position for position, silo in enumerate(silos)},
        )

    def summand(self, update: Update, global_adapter: Array, public: Public) -> Update:
        adapter, layout = update.layout, public.layout
        values = np.zeros(layout.size, dtype=np.float32)
        if update.silo:  # a silo that is nobody fills no slot
            own = update.values.astype(np.float64)
            for (_, change_b), (_, b) in zip(factors(adapter, own), factors(adapter, global_adapter), strict=True):
                change_b += b
            start = adapter.size * public.silos.index(update.silo)
            values[start : start + adapter.size] = own * update.weight
        return replace(update, values=values, layout=layout, norm_bound=None)

    def apply(self, total: NDArray[np.floating], silos: Sequence[str], global_adapter: Array, public: Public) -> Array:
        adapter = public.adapter
        slots = zip(total.astype(np.float64).reshape(-1, adapter.size), public.silos, strict=True)
        # those of silos that were away are empty
        held = [(list(factors(adapter, slot)), public.weights[silo]) for slot, silo in slots if slot.any()]
        after = global_adapter.copy()
        old = [a.astype(np.float64) for a, _ in factors(adapter, global_adapter)]
        for number, (change, a) in enumerate(zip(dense(adapter, after), old, strict=True)):
            if held:
                tall = np.concatenate([a + slot[number][0] / weight for slot, weight in held], axis=0)
                flat = np.concatenate([slot[number][1] for slot, _ in held], axis=1)
                change += (flat @ tall / _sum(public, silos)).astype(np.float32)
        after[: adapter.size] = _fresh(adapter, global_adapter)
        return after

    def implied_total(self, before: Array, after: Array, silos: Sequence[str], public: Public) -> None:
        """Lost: D gives M, whose factors are known up to an invertible matrix only."""
        return None

    def implied_adapter(
        self, summand: NDArray[np.floating], weight: int, global_adapter: Array, public: Public
    ) -> Array:
        """From whichever slot it fills."""
        size = public.adapter.size
        own = summand.astype(np.float64).reshape(-1, size).sum(0) / weight
        after = global_adapter.copy()
        parts = zip(factors(public.adapter, own), factors(public.adapter, after), strict=True)
        for (change_a, own_b), (a, b) in parts:
            a += change_a.astype(np.float32)
            b[...] = own_b
        return after


def _fresh(adapter: Layout, global_adapter: Array) -> Array:
    """New factors with B = 0, which follow from the former A."""
    state = hashlib.sha256()
    for a, _ in factors(adapter, global_adapter):
        state.update(np.ascontiguousarray(a, dtype="<f4").tobytes())
    seed = int.from_bytes(state.digest(), "little")
    return initial_factors(adapter, np.random.Generator(np.random.PCG64(seed)))


def _sum(public: Public, silos: Sequence[str]) -> int:
    return sum(public.weights[silo] for silo in silos)
