"""What a model makes of whole labels at the places of the answers, however many tokens each has.

Labels are rows of tokens. They make a tree: its nodes are what labels begin with, its edges the tokens that follow. A
node is asked once per record, for the log-probabilities of its edges, so that labels that begin alike share passes,
and labels of one token each cost none beside the pass over the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.core.tokens import Tokens, TokenStats
from bench.model.lora import LoraModel

Labels = Sequence[tuple[int, ...]]
Row = tuple[int, ...]
Floats = NDArray[np.float64]


def with_labels(model: LoraModel, tokens: Tokens, labels: Labels, how: Literal["sum", "mean"]) -> TokenStats:
    """``model.stats(tokens)`` with ``choices`` (n, labels): the score of each whole label at the answer, NaN for a
    record without one; None where there are no labels.

    ``sum``: log-probability of the label's tokens one after the other. Where another label goes on from it (1 and 10),
    also that the model does not go on so: log(1 - p(what goes on)). ``mean``: that over the number of its terms.
    """
    if not labels:
        return model.stats(tokens)
    tree = children(labels)
    stats = model.stats(tokens, tree[()])
    assert stats.choices is not None
    asked = np.flatnonzero(tokens.answer >= 0)
    part = tokens.take(asked)
    edges: dict[Row, Floats] = {(): np.asarray(stats.choices[asked], dtype=np.float64)}
    for node in sorted(tree.keys() - {()}):
        found = model.stats(_behind(part, node, tree[node][0]), tree[node]).choices
        assert found is not None
        edges[node] = found.astype(np.float64)
    scores = np.full((len(tokens), len(labels)), np.nan, dtype=np.float32)
    for column, row in enumerate(labels):
        scores[asked, column] = _score(row, edges, tree, how)
    return replace(stats, choices=scores)


def children(labels: Labels) -> dict[Row, list[int]]:
    """By what labels begin with, the tokens that follow it in them, in ascending order."""
    found: dict[Row, set[int]] = {}
    for row in labels:
        for depth, token in enumerate(row):
            found.setdefault(row[:depth], set()).add(token)
    return {node: sorted(tokens) for node, tokens in found.items()}


def _score(row: Row, edges: dict[Row, Floats], tree: dict[Row, list[int]], how: str) -> Floats:
    terms = [edges[row[:k]][:, tree[row[:k]].index(token)] for k, token in enumerate(row)]
    if row in edges:
        goes_on = np.minimum(np.exp(edges[row]).sum(axis=1), 1.0)
        with np.errstate(divide="ignore"):  # a model that is sure to go on: -inf, the least score
            terms.append(np.log1p(-goes_on))
    total: Floats = np.sum(terms, axis=0)
    return total / len(terms) if how == "mean" else total


def _behind(tokens: Tokens, node: Row, token: int) -> Tokens:
    """The records up to their answers, then ``node``, then ``token``, the only one that is predicted and answered."""
    at = tokens.answer.astype(np.int64) + len(node)
    rows, columns = np.arange(len(tokens)), np.arange(int(at.max(initial=0)) + 1)
    ids = np.zeros((len(tokens), len(columns)), dtype=np.int32)
    width = min(tokens.ids.shape[1], len(columns))
    ids[:, :width] = tokens.ids[:, :width]
    for k, one in enumerate((*node, token)):
        ids[rows, tokens.answer + k] = one
    ids[columns > at[:, None]] = 0
    where = at.astype(np.int32)
    return Tokens(ids, where + 1, columns == at[:, None], where, tokens.lead)
