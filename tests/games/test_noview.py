"""The no-view baseline on texts: blind splits pass, broken ones are found."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from bench import games, stats
from bench.core.tokens import Tokens, TokenStats
from bench.games.membership import make_sheet
from bench.games.noview import baseline, word_scores

N = 120
WORDS = [f"word{i}" for i in range(60)]


def texts(seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(8, 20))) for _ in range(N)]


def tokens(lengths: np.ndarray) -> Tokens:
    width = int(lengths.max())
    predicted = (np.arange(width) < lengths[:, None]) & (np.arange(width) > 0)
    return Tokens(
        np.ones((len(lengths), width), np.int32), lengths.astype(np.int32), predicted, np.full(len(lengths), -1)
    )


def base_stats(t: Tokens, seed: int = 1) -> TokenStats:
    logp = -np.random.default_rng(seed).exponential(3, t.ids.shape).astype(np.float32)
    return TokenStats(np.where(t.predicted, logp, 0).astype(np.float32), t.predicted)


def score(text: list[str], member: np.ndarray, lengths: np.ndarray | None = None) -> games.sheet.Scored:
    t = tokens(np.full(N, 12) if lengths is None else lengths)
    cluster = np.arange(N)
    scores = baseline(t, base_stats(t), text, member, cluster)
    ids = [f"{i:03d}" for i in range(N)]
    return games.leakage(make_sheet(ids, ["s"] * N, cluster, member, {"a": np.arange(N)}, scores))


def test_scores_by_hand() -> None:
    t = tokens(np.array([3, 4, 3, 4]))
    text = ["a a a a", "bc", "some more words", "zz"]
    member = np.array([True, True, False, False])
    found = baseline(t, base_stats(t), text, member, np.arange(4))
    losses = base_stats(t).losses()
    assert set(found) == {"loss", "zlib", "length", "characters", "fit:words"}
    assert found["loss"] == pytest.approx(-losses)
    assert found["zlib"] == pytest.approx(
        [-x / len(zlib.compress(s.encode())) for x, s in zip(losses, text, strict=True)]
    )
    assert found["length"].tolist() == [3, 4, 3, 4]
    assert found["characters"].tolist() == [7, 2, 15, 2]
    assert "fit:words" not in baseline(t, base_stats(t), text, np.array([True, False, False, False]), np.arange(4))


def test_word_scores_by_hand() -> None:
    """Taught by members "x y", "x" and non-members "y", "z": odds of x are (2+1)/(3+3) to (0+1)/(2+3)."""
    text = ["x y", "x", "y", "z", "x x!", "Z unheard"]
    member = np.array([True, True, False, False, True, False])
    folds = np.array([0, 0, 0, 0, 1, 1], np.int8)
    # four words are known in all: x, y, z, unheard
    found = word_scores(text, member, folds)
    assert found[4] == pytest.approx(np.log((3 / 7) / (1 / 6)))
    assert found[5] == pytest.approx(np.log((1 / 7) / (2 / 6)) + np.log((1 / 7) / (1 / 6)))


def test_own_fold_teaches_nothing() -> None:
    text, member = texts(), np.arange(N) % 2 == 0
    folds = stats.split(np.arange(N), member)
    found = word_scores(text, member, folds)
    flipped = np.where(folds == 0, ~member, member)
    assert (word_scores(text, flipped, folds)[folds == 0] == found[folds == 0]).all()


def test_blind_draws_pass() -> None:
    text = texts()
    for seed in range(20):
        member = np.random.default_rng(seed).permutation(N) < N // 2
        assert not score(text, member).void


def test_a_word_that_gives_members_away_voids() -> None:
    member = np.random.default_rng(3).permutation(N) < N // 2
    marked = [f"{t} secretly" if m else t for t, m in zip(texts(), member, strict=True)]
    scored = score(marked, member)
    assert scored.void
    assert "fit:words" in scored.note


def test_lengths_that_give_members_away_void() -> None:
    member = np.random.default_rng(3).permutation(N) < N // 2
    scored = score(texts(), member, np.where(member, 14, 12))
    assert scored.void
    assert "'length'" in scored.note


def test_shorter_members_void_too() -> None:
    member = np.random.default_rng(3).permutation(N) < N // 2
    assert score(texts(), member, np.where(member, 12, 14)).void
