"""Simulated updates of population records, what each token has to do with one, and a logistic model of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.rowspace.algebra import RowSpace, Whitening, direction_evidence, residuals
from attacks.rowspace.constraints import Change
from attacks.rowspace.identify import Vocabulary
from attacks.rowspace.observe import Observed
from bench.core.tokens import Tokens
from bench.core.update import Layout
from bench.defense.defaults.trainer import make_optimizer
from bench.model.lora import LoraModel
from bench.spec.run import LocalSpec

Floats = NDArray[np.float64]

#: of the standardised coefficients' squares, against one nat
RIDGE = 1.0
#: log-odds beyond which a token is as good as always, or never, there
CERTAIN = 8.0


def simulate(
    model: LoraModel,
    before: NDArray[np.float32],
    tokens: Tokens,
    settings: LocalSpec,
    steps: int,
    rng: np.random.Generator,
) -> Floats:
    """(layout.size,) change of the trained values after ``steps`` steps on ``tokens`` from ``before``, by the public
    ``settings``; the model is given back as it was."""  # fmt: skip
    kept = model.get_adapter()
    model.set_adapter(before)
    try:
        parameters = model.parameters()
        optimizer = make_optimizer(parameters, settings, settings.lr)
        start = np.concatenate([p.detach().cpu().numpy().ravel() for p in parameters]).astype(np.float64)
        for rows in _batches(len(tokens), settings.batch, steps, rng):
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(model.losses(tokens.take(rows)).mean())
            if settings.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return np.concatenate([p.detach().cpu().numpy().ravel() for p in parameters]).astype(np.float64) - start
    finally:
        model.set_adapter(kept)


def _batches(n: int, batch: int, steps: int, rng: np.random.Generator) -> list[list[int]]:
    found: list[list[int]] = []
    while len(found) < steps:
        order = rng.permutation(n)
        found += [order[i : i + batch].tolist() for i in range(0, n, batch)]
    return found[:steps]


def alike(change: Floats, seen: Observed, layout: Layout, rng: np.random.Generator) -> Floats:
    """A simulated change with as much of each tensor missing as in ``seen``, its smallest entries, and as noisy."""
    flat = change + seen.deviation * rng.normal(size=len(change)) if seen.deviation else change.copy()
    for (_, tensor), (_, known) in zip(layout.tensors(flat), layout.tensors(seen.known), strict=True):  # type: ignore[arg-type]
        share = 1 - float(known.mean())
        if share > 0:
            tensor[np.abs(tensor) <= np.quantile(np.abs(tensor), share)] = 0
    return flat


def features(vocabulary: Vocabulary, change: Mapping[str, Change], prior: Floats) -> Floats:
    """(vocabulary, k): what the population says of a token, and for each projection of the first group the evidence of
    its direction, how far it lies from the strongest half of the row space, how much of the change lies along it; for
    the changes of A, how much of the token's input lies in their row space."""
    prior = np.clip(prior, -CERTAIN, CERTAIN)
    columns = [prior, np.square(prior) / 10]
    for name in vocabulary.probe.groups[0]:
        one = change[name]
        vectors = np.concatenate([x @ one.a.T for _, x in vocabulary.probe.vocabulary()])
        white = Whitening.of(one.a @ vocabulary.moment @ one.a.T).matrix
        columns += _of_change(one.db @ white, vectors @ white)
        if one.da.any():
            basis = np.linalg.qr(one.da.T)[0].T
            inside = [1 - residuals(RowSpace(basis, np.ones(len(basis))), x) ** 2
                      for _, x in vocabulary.probe.vocabulary()]  # fmt: skip
            columns.append(np.log(np.maximum(np.concatenate(inside), 1e-9)))
        else:
            columns.append(np.zeros_like(prior))
    return np.stack(columns, axis=1)


def _of_change(change: Floats, vectors: Floats) -> list[Floats]:
    if not change.any():
        return [np.zeros(len(vectors))] * 3
    change = change / np.linalg.norm(change)
    _, values, basis = np.linalg.svd(change, full_matrices=False)
    half = RowSpace(basis[: max(1, len(basis) // 2)], values)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    along = np.square(unit @ basis.T) @ np.square(values)
    return [
        direction_evidence(change, vectors),
        np.log(np.maximum(residuals(half, vectors), 1e-6)),
        np.log(np.maximum(along, 1e-12)),
    ]


@dataclass(frozen=True)
class Logistic:
    """A logistic model of standardised features. ``weights``: (k + 1,), the constant last."""

    mean: Floats
    scale: Floats
    weights: Floats

    @classmethod
    def fit(cls, rows: Floats, labels: NDArray[np.bool_], iterations: int = 200) -> Logistic:
        """Maximum penalised likelihood (scikit-learn, Newton's method with line search)."""
        from sklearn.linear_model import LogisticRegression

        mean, scale = rows.mean(0), np.maximum(rows.std(0), 1e-9)
        if labels.all() or not labels.any():
            return cls(mean, scale, np.zeros(rows.shape[1] + 1))
        model = LogisticRegression(C=1 / RIDGE, solver="newton-cholesky", max_iter=iterations)
        model.fit((rows - mean) / scale, labels)
        return cls(mean, scale, np.append(model.coef_[0], model.intercept_[0]))

    def log_odds(self, rows: Floats) -> Floats:
        """(n,)"""
        return np.asarray((rows - self.mean) / self.scale @ self.weights[:-1] + self.weights[-1])


def sample(labels: Sequence[NDArray[np.bool_]], rows: Sequence[Floats]) -> tuple[Floats, NDArray[np.bool_]]:
    """All simulations' rows, one below another."""
    return np.concatenate(list(rows)), np.concatenate(list(labels))
