"""Membership scores of the likelihood family, as pure functions of arrays. Higher = more likely a member.

Each score has two entries: one on logits, ``score(logits, tokens, ...)``, and one for all scores at once on the
``TokenStats`` of a single forward pass, ``from_stats`` (one model) and ``from_pair`` (the tuned model against the base
model, one forward pass each). Both entries go through the same arithmetic on per-token values.

``logits``, ``base_logits``: (length, vocabulary) finite or -inf, row t predicting ``tokens[t]``, of the tuned model and
of the base model. ``tokens``: (length,) integer ids.
``k``: a fraction in (0, 1]; of T tokens, floor(k T) are taken, and at least one.
All logarithms are natural. Malformed input raises ValueError.

Sources: loss, Yeom et al. 2018 ("Privacy risk in machine learning"); zlib, Carlini et al. 2021 ("Extracting training
data from large language models"), section 5.2; Min-K%, Shi et al. 2024 ("Detecting pretraining data from large
language models"), section 3; Min-K%++, Zhang et al. 2024 ("Min-K%++: improved baseline for detecting pre-training data
from large language models"), equations 3 and 4; accuracy, Yeom et al. 2018 (the "gap attack") token by token; EZ, Ilic
et al. 2026 ("Powerful training-free membership inference against autoregressive language models"), changed as ``ez``
says; windows, Chen et al. 2026 ("Window-based membership inference attacks against fine-tuned large language models"),
section 4.1.
"""

from __future__ import annotations

import zlib as _zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.core.tokens import TokenStats

Floats = NDArray[np.float64]

#: why a score that needs the whole next-token distribution is missing at a query interface
NO_DISTRIBUTION = "the query interface gives the text's own log-probabilities, not the next-token distribution"
#: why a score that needs the model's own next token is missing
NO_FIRST_CHOICE = "whether a token is the model's first choice was not read"

#: window lengths in tokens: 10 of them, geometrically spaced from 2 to 40 (Chen et al. 2026, equation 12)
WINDOWS = tuple(round(2 * 20 ** (k / 9)) for k in range(10))

Vote = Literal["sign", "mean", "best"]
#: the window scores that are reported, by name
VOTES: dict[str, Vote] = {"wbc": "sign", "window-mean": "mean", "window-best": "best"}


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


def accuracy(logits: NDArray[np.floating], tokens: NDArray[np.integer]) -> float:
    """Share of the tokens that are the model's first choice, in [0, 1]: all that generated text alone tells. A token
    as likely as the likeliest counts as first."""
    return float(np.mean(first_choices(logits, tokens)))


def ez(logits: NDArray[np.floating], base_logits: NDArray[np.floating], tokens: NDArray[np.integer]) -> float:
    """The error zone: P / (P + N) in [0, 1], where P and N are the sums of what tuning adds to and takes from the
    log-probabilities of the tokens that are not the tuned model's first choice; or a value in [1, 2] for N = 0.

    Published is P / N, of which P / (P + N) keeps the order, with 0 where N = 0 and where no error is left: the records
    known best get the lowest score. Here they come first, at 1 + P / (P + N) over all tokens of the record. Where
    tuning changed nothing at all, 1/2.
    """
    tuned, base = token_statistics(logits, tokens)[0], token_statistics(base_logits, tokens)[0]
    return error_zone(gains(tuned, base), first_choices(logits, tokens))


def windows(
    logits: NDArray[np.floating],
    base_logits: NDArray[np.floating],
    tokens: NDArray[np.integer],
    lengths: Sequence[int] = WINDOWS,
    vote: Vote = "sign",
) -> float:
    """What tuning adds to the log-probability, in windows slid over the record, averaged over the window lengths.

    ``vote``: "sign", the share of the windows that gain (WBC, in [0, 1]); "mean" and "best", the mean and the largest
    of the windows' mean gains, in nats per token. A window longer than the record is cut to it.
    """
    tuned, base = token_statistics(logits, tokens)[0], token_statistics(base_logits, tokens)[0]
    return slide(gains(tuned, base), lengths, vote)


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


def first_choices(logits: NDArray[np.floating], tokens: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(length,) whether no other token has a larger logit."""
    scores, ids = np.asarray(logits, np.float64), np.asarray(tokens)
    _check(scores, ids)
    first: NDArray[np.bool_] = scores[np.arange(len(ids)), ids] == scores.max(axis=1)
    return first


def gains(tuned: Floats, base: Floats) -> Floats:
    """(length,) log-probability under the tuned model less that under the base model, in nats; 0 where both are -inf.
    Raises ValueError for records of different lengths or without a token."""
    if tuned.shape != base.shape or tuned.ndim != 1 or not len(tuned):
        raise ValueError(f"expected log-probabilities of one record's tokens twice, got {tuned.shape}, {base.shape}")
    with np.errstate(invalid="ignore"):
        return np.where(tuned == base, 0.0, tuned - base)


def error_zone(gain: Floats, first: NDArray[np.bool_]) -> float:
    """``ez`` from each token's gain and whether it is the tuned model's first choice, both (length,)."""
    if gain.shape != first.shape:
        raise ValueError(f"expected one flag per token, got {gain.shape}, {first.shape}")
    zone = gain[~first]
    if (zone < 0).any() or not gain.any():
        return _rising(zone)
    return 1 + _rising(gain)


def _rising(gain: Floats) -> float:
    """P / (P + N): how much of all change is upwards; 1/2 where nothing changes."""
    up, down = float(gain[gain > 0].sum()), -float(gain[gain < 0].sum())
    if np.isinf(up) or np.isinf(down):
        return 0.5 if up == down else float(up > down)
    return up / (up + down) if up + down else 0.5


def slide(gain: Floats, lengths: Sequence[int] = WINDOWS, vote: Vote = "sign") -> float:
    """``windows`` from each token's gain, (length,)."""
    return float(np.mean([_vote(means, vote) for means in _windowed(gain, lengths)]))


def _windowed(gain: Floats, lengths: Sequence[int]) -> list[Floats]:
    """For each length, (windows,) the mean gain of each window. Summed window by window: no difference of large running
    sums. Windows that are cut to the same length are summed once."""
    if not len(lengths) or any(length < 1 for length in lengths):
        raise ValueError(f"window lengths are whole numbers of at least 1, not {list(lengths)}")
    if not len(gain):
        raise ValueError("a record needs at least one predicted token")
    values, cut = np.asarray(gain, np.float64), [min(length, len(gain)) for length in lengths]
    sums = {n: np.convolve(values, np.ones(n), "valid") for n in set(cut)}
    return [sums[n] / n for n in cut]


def _vote(means: Floats, vote: Vote) -> float:
    if vote == "sign":
        return float(np.mean(means > 0))
    if vote == "mean":
        return float(np.mean(means))
    if vote == "best":
        return float(np.max(means))
    raise ValueError(f"a vote is by sign, mean or best, not {vote!r}")


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

    Names: ``loss``, ``zlib``, ``accuracy``, and for each fraction (0.2) ``min-20%`` and ``min-20%++``. The last is
    missing where ``stats`` holds no mean and deviation, ``accuracy`` where it holds no first choices.
    """
    if len(texts) != len(stats.logp):
        raise ValueError(f"{len(stats.logp)} records but {len(texts)} texts")
    logp = _rows(stats.logp, stats)
    scores = {"loss": np.array([mean_logp(row) for row in logp])}
    scores["zlib"] = scores["loss"] / np.array([compressed_bytes(text) for text in texts], np.float64)
    missing: dict[str, str] = {}
    if stats.first is None:
        missing["accuracy"] = NO_FIRST_CHOICE
    else:
        scores["accuracy"] = np.array([row[keep].mean() for row, keep in _kept(stats.first, stats)])
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


def from_pair(tuned: TokenStats, base: TokenStats, lengths: Sequence[int]) -> tuple[dict[str, Floats], dict[str, str]]:
    """The scores that compare two models token by token, of the ``n`` same records, as ``from_stats`` gives them.

    Names: ``ez``, missing where ``tuned`` holds no first choices, and ``wbc``, ``window-mean`` and ``window-best``,
    which need the text's own log-probabilities only.
    """
    if not np.array_equal(tuned.predicted, base.predicted):
        raise ValueError("both models must be asked about the same records")
    gain = [gains(*pair) for pair in zip(_rows(tuned.logp, tuned), _rows(base.logp, base), strict=True)]
    slid = [_windowed(row, lengths) for row in gain]
    scores = {
        name: np.array([np.mean([_vote(means, vote) for means in row]) for row in slid], np.float64)
        for name, vote in VOTES.items()
    }
    if tuned.first is None:
        return scores, {"ez": NO_FIRST_CHOICE}
    first = [row[keep] for row, keep in _kept(tuned.first, tuned)]
    scores["ez"] = np.array([error_zone(*pair) for pair in zip(gain, first, strict=True)], np.float64)
    return scores, {}


def _kept(values: NDArray[Any], stats: TokenStats) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    return zip(values, stats.predicted, strict=True)


def _rows(values: NDArray[np.float32], stats: TokenStats) -> list[Floats]:
    return [row[keep].astype(np.float64) for row, keep in _kept(values, stats)]


def calibrated(tuned: Mapping[str, Floats], base: Mapping[str, Floats]) -> dict[str, Floats]:
    """``name-base``: each score under the tuned model less the same score under the base model, the difficulty of
    the record itself taken out (Watson et al. 2022, "On the importance of difficulty calibration")."""
    return {f"{name}-base": values - base[name] for name, values in tuned.items() if name in base}
