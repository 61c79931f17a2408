"""Membership scores of the likelihood family, as pure functions of arrays. Higher = more likely a member.

Each score has two entries: one on logits, ``score(logits, tokens, ...)``, and one for all scores at once on the
``TokenStats`` of a single forward pass, ``from_stats``. Both go through the same arithmetic on per-token values.

``logits``: (length, vocabulary) finite or -inf, row t predicting ``tokens[t]``. ``tokens``: (length,) integer ids.
``k``: a fraction in (0, 1]; of T tokens, floor(k T) are taken, and at least one.
All logarithms are natural. Malformed input raises ValueError.

Sources: loss, Yeom et al. 2018 ("Privacy risk in machine learning"); zlib, Carlini et al. 2021 ("Extracting training
data from large language models"), section 5.2; Min-K%, Shi et al. 2024 ("Detecting pretraining data from large
language models"), section 3; Min-K%++, Zhang et al. 2024 ("Min-K%++: improved baseline for detecting pre-training data
from large language models"), equations 3 and 4.
"""

from __future__ import annotations

import zlib as _zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.tokens import TokenStats

Floats = NDArray[np.float64]

#: why a score that needs the whole next-token distribution is missing at a query interface
NO_DISTRIBUTION = "the query interface gives the text's own log-probabilities, not the next-token distribution"


def loss(logits: NDArray[np.floating], tokens: NDArray[np.integer]) -> float:
    """Mean log-probability of the tokens: the negative of the model's loss, in nats per token."""
    return mean_logp(token_statistics(logits, tokens)[0])


def zlib(logits: NDArray[np.floating], tokens: NDArray[np.integer], text: str) -> float:
    """``loss`` divided by the bytes of the text compressed with zlib (level 6): likely although it is no filler."""
    return loss(logits, tokens) / compressed_bytes(text)


def min_k(logits: NDArray[np.floating], tokens: NDArray[np.integer], k: float) -> float:
    """Mean log-probability of the fraction ``k`` of least likely tokens."""
    return lowest_mean(token_statistics(logits, tokens)[0], k)


def min_k_plus_plus(logits: NDArray[np.floating], tokens: NDArray[np.integer], k: float) -> float:
    """Mean of the lowest fraction ``k`` of log-probabilities standardised over the vocabulary at their position."""
    return lowest_mean(standardised(*token_statistics(logits, tokens)), k)


def token_statistics(logits: NDArray[np.floating], tokens: NDArray[np.integer]) -> tuple[Floats, Floats, Floats]:
    """(logp, mean, sd), each (length,): the token's log-probability, and mean and standard deviation of the
    log-probability over the model's own next-token distribution at that position."""
    scores, ids = np.asarray(logits, np.float64), np.asarray(tokens)
    _check(scores, ids)
    top = scores.max(axis=1, keepdims=True)
    logp = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
    p = np.exp(logp)
    finite = np.where(p > 0, logp, 0.0)  # p log p -> 0 as p -> 0
    mean = (p * finite).sum(axis=1)
    # Centred before squaring, so that a flat distribution gives a deviation of rounding size only.
    sd = np.sqrt((p * np.square(finite - mean[:, None])).sum(axis=1))
    return logp[np.arange(len(ids)), ids], mean, sd


def _check(logits: Floats, tokens: NDArray[np.integer]) -> None:
    if logits.ndim != 2 or tokens.ndim != 1 or len(logits) != len(tokens):
        raise ValueError(
            f"expected logits (length, vocabulary) and tokens (length,), got {logits.shape}, {tokens.shape}"
        )
    if not len(tokens):
        raise ValueError("a record needs at least one predicted token")
    if not np.issubdtype(tokens.dtype, np.integer) or tokens.min() < 0 or tokens.max() >= logits.shape[1]:
        raise ValueError(f"token ids must be integers in [0, {logits.shape[1]})")
    if np.isnan(logits).any() or np.isposinf(logits).any() or np.isneginf(logits).all(axis=1).any():
        raise ValueError("logits must not hold NaN, +inf or a row of nothing but -inf")


def mean_logp(logp: Floats) -> float:
    """Mean of one record's token log-probabilities, shape (length,)."""
    return float(np.mean(logp, dtype=np.float64))


def compressed_bytes(text: str) -> int:
    """Length in bytes of the UTF-8 text compressed with zlib at its default level (6); 8 for the empty text."""
    return len(_zlib.compress(text.encode("utf-8", errors="surrogatepass")))


def lowest_mean(values: Floats, k: float) -> float:
    """Mean of the floor(k T) lowest of T ``values`` (at least one)."""
    if not 0 < k <= 1:
        raise ValueError(f"k is a fraction in (0, 1], not {k}")
    if not len(values):
        raise ValueError("a record needs at least one predicted token")
    count = max(1, int(k * len(values) + 1e-9))  # 0.29 * 100 is 28.999... in floating point
    return float(np.mean(np.sort(np.asarray(values, np.float64))[:count]))


#: below this deviation (nats) a next-token distribution counts as flat: float32 arithmetic gives no less than this
FLAT = 1e-6


def standardised(logp: Floats, mean: Floats, sd: Floats) -> Floats:
    """(logp - mean) / sd per token; 0 where the distribution is flat (sd below 1e-6): every token is as expected."""
    return np.divide(logp - mean, sd, out=np.zeros(len(logp), np.float64), where=np.asarray(sd) > FLAT)


def from_stats(
    stats: TokenStats, texts: Sequence[str], fractions: Sequence[float]
) -> tuple[dict[str, Floats], dict[str, str]]:
    """All scores of ``n`` records from one forward pass, as ({name: (n,) scores}, {name: why it is missing}).

    Names: ``loss``, ``zlib``, and for each fraction (0.2) ``min-20%`` and ``min-20%++``. The last is missing where
    ``stats`` holds no mean and deviation.
    """
    if len(texts) != len(stats.logp):
        raise ValueError(f"{len(stats.logp)} records but {len(texts)} texts")
    logp = _rows(stats.logp, stats)
    scores = {"loss": np.array([mean_logp(row) for row in logp])}
    scores["zlib"] = scores["loss"] / np.array([compressed_bytes(text) for text in texts], np.float64)
    missing: dict[str, str] = {}
    whole = None
    if stats.mean is not None and stats.sd is not None:
        rows = zip(logp, _rows(stats.mean, stats), _rows(stats.sd, stats), strict=True)
        whole = [standardised(*row) for row in rows]
    for k in fractions:
        name = f"min-{100 * k:g}%"
        scores[name] = np.array([lowest_mean(row, k) for row in logp])
        if whole is None:
            missing[f"{name}++"] = NO_DISTRIBUTION
        else:
            scores[f"{name}++"] = np.array([lowest_mean(row, k) for row in whole])
    return scores, missing


def _rows(values: NDArray[np.float32], stats: TokenStats) -> list[Floats]:
    return [row[keep].astype(np.float64) for row, keep in zip(values, stats.predicted, strict=True)]


def calibrated(tuned: Mapping[str, Floats], base: Mapping[str, Floats]) -> dict[str, Floats]:
    """``name-base``: each score under the tuned model less the same score under the base model, the difficulty of
    the record itself taken out (Watson et al. 2022, "On the importance of difficulty calibration")."""
    return {f"{name}-base": values - base[name] for name, values in tuned.items() if name in base}
