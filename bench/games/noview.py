"""The membership game's baseline: what can be told without any view.

The game draws members blindly, so nothing here can beat chance but by luck. If something does, the split is broken (the
members differ before any training), and whatever an attack then finds proves nothing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.core.tokens import Tokens, TokenStats
from bench.stats import Folds, TooFewClusters, split

Floats = NDArray[np.float64]
#: names of scores that a classifier trained on the other fold gave: comparable within a fold only
FITTED = "fit:"
_WORD = re.compile(r"\w+")


def baseline(
    tokens: Tokens, stats: TokenStats, texts: Sequence[str], member: NDArray[np.bool_], cluster: NDArray[np.int64]
) -> dict[str, Floats]:
    """Scores (n,) of all candidates, by name, from the base model and the texts alone; higher = more likely a member.

    ``loss``: minus the base model's mean negative log-likelihood per token. ``zlib``: that over the bytes of the
    zlib-compressed text (Carlini et al. 2021). ``texts``: what the model saw, since a text that goes on behind the last
    token tells of what no loss covers. ``length``: tokens. ``characters``: of the text. ``fit:words``: a
    classifier of words, trained on the other fold's labels; left out where the clusters are too few for two folds.
    ``stats``: of the base model. ``cluster`` must hold the labels that the sheet is made with: they make the folds.
    """
    losses = stats.losses()
    packed = np.array([len(zlib.compress(text.encode())) for text in texts], dtype=np.float64)
    scores: dict[str, Floats] = {
        "loss": -losses,
        "zlib": -losses / packed,
        "length": (tokens.lengths - tokens.lead).astype(np.float64),
        "characters": np.array([len(text) for text in texts], dtype=np.float64),
    }
    try:
        folds = split(cluster.tolist(), member)
    except TooFewClusters:
        return scores
    scores[f"{FITTED}words"] = word_scores(texts, member, folds)
    return scores


def word_scores(texts: Sequence[str], member: NDArray[np.bool_], folds: Folds) -> Floats:
    """(n,) log-odds of membership by naive Bayes on which words a text has, trained on the other fold.

    Multinomial on presence, Laplace-smoothed, without a prior (Manning, Raghavan and Schütze 2008, ch. 13).
    """
    known: dict[str, int] = {}
    rows = [[known.setdefault(w, len(known)) for w in sorted(set(_WORD.findall(text.lower())))] for text in texts]
    words = np.array([w for row in rows for w in row], dtype=np.int64)
    owner = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    scores = np.zeros(len(rows))
    for fold in (0, 1):
        odds = np.zeros(len(known))
        for side, sign in ((member, 1.0), (~member, -1.0)):
            taught = ((folds != fold) & side)[owner]
            counts = np.bincount(words[taught], minlength=len(known)) + 1.0
            odds += sign * np.log(counts / counts.sum())
        held = (folds == fold)[owner]
        scores += np.bincount(owner[held], weights=odds[words[held]], minlength=len(rows))
    return scores
