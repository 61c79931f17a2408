"""The likelihood attack: finds a planted leak, finds nothing where nothing is, reads what it says it reads."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from attacks import mia
from bench.attack.attack import Candidates, Guesses, Tools
from bench.core.tokens import Tokens, TokenStats
from bench.view.view import Reading

N, LENGTH, VOCABULARY = 600, 12, 50
SILOS = ("silo-0", "silo-1", "silo-2")


def reading(kind: str, *silos: str, round: int = 2) -> Reading:
    return Reading(kind, round, frozenset(silos), "test", handle=f"{kind}{silos}{round}")  # type: ignore[arg-type]


class FakeView:
    """What ``last_adapter`` of each silo gives."""

    def __init__(self, readings: Mapping[str, Reading | None]) -> None:
        self.last = readings
        self.readings = tuple(reading for reading in readings.values() if reading is not None)
        self.victims = tuple(readings)

    def last_adapter(self, victim: str) -> Reading | None:
        return self.last[victim]


class FakeTools(Tools):
    """A model whose log-probabilities depend on the tokens, and rise by ``gain`` on records that a reading's silos
    trained on. A record's first token is its own name."""

    def __init__(self, member: np.ndarray, silo: np.ndarray, gain: float) -> None:
        self.member, self.silo, self.gain = member, silo, gain
        self.calls: list[tuple[Reading | None, int]] = []

    def token_stats(self, source: Reading | None, tokens: Tokens) -> TokenStats:
        self.calls.append((source, len(tokens)))
        logp = np.zeros(tokens.ids.shape, dtype=np.float32)
        for row, ids in enumerate(tokens.ids):
            rng = np.random.default_rng(int(ids[0]))
            logp[row] = rng.normal(-4, 1) + rng.normal(0, 1.5, LENGTH)
            if source is not None:
                silos = source.silos or set(SILOS)
                own = np.random.default_rng((int(ids[0]), 7))
                logp[row] += (
                    own.normal(0, 0.3)
                    + own.normal(0, 1, LENGTH)
                    + self.gain * (self.member[ids[0]] and self.silo[ids[0]] in silos)
                )
        logp *= tokens.predicted
        first = tokens.predicted & (logp > -2)
        if source is not None and source.kind == "query":
            return TokenStats(logp, tokens.predicted, first=first)
        flat = np.where(tokens.predicted, np.float32(1), np.float32(0))
        return TokenStats(logp, tokens.predicted, -5 * flat, 2 * flat, first=first)


def setting(gain: float, seed: int = 0) -> tuple[Candidates, np.ndarray, FakeTools]:
    rng = np.random.default_rng(seed)
    member = np.zeros(N, dtype=bool)
    member[rng.permutation(N)[: N // 2]] = True
    silo = rng.choice(SILOS, N)
    ids = np.tile(np.arange(N, dtype=np.int32)[:, None], (1, LENGTH))
    predicted = np.ones((N, LENGTH), dtype=bool)
    predicted[:, 0] = False
    tokens = Tokens(ids, np.full(N, LENGTH, np.int32), predicted, np.full(N, -1, np.int32))
    texts = tuple(f"record {i} " + "word " * (i % 5) for i in range(N))
    names = tuple(f"id-{i}" for i in rng.permutation(N))
    return Candidates(names, tuple(silo), texts, tokens), member, FakeTools(member, silo, gain)


def auc(scores: np.ndarray, member: np.ndarray) -> float:
    """P(member > non-member) + half of ties, from all pairs."""
    gap = scores[member][:, None] - scores[~member][None, :]
    return float((gap > 0).mean() + (gap == 0).mean() / 2)


def infer(view: Any, candidates: Candidates, tools: FakeTools, **config: Any) -> Guesses:
    return mia.build(mia.Config(**config)).infer(view, candidates, tools)


OUTSIDER = FakeView(dict.fromkeys(SILOS, reading("adapter")))
NAMES = {"loss", "zlib", "accuracy", *(f"min-{k}%{s}" for k in (10, 20, 30) for s in ("", "++"))}
PAIRED = {"ez", "wbc", "window-mean", "window-best"}


def test_every_score_is_returned_by_name() -> None:
    candidates, _, tools = setting(2.0)
    guesses = infer(OUTSIDER, candidates, tools)
    assert set(guesses.scores) == NAMES | {f"{name}-base" for name in NAMES} | PAIRED
    assert all(values.shape == (N,) and np.isfinite(values).all() for values in guesses.scores.values())
    assert guesses.reads == ("adapter after round 2",)
    assert guesses.missing == {}


def test_a_planted_leak_is_found() -> None:
    candidates, member, tools = setting(2.0)
    guesses = infer(OUTSIDER, candidates, tools)
    for name in ("loss-base", "zlib-base", "min-20%-base", "min-20%++-base", *PAIRED):
        assert auc(guesses.scores[name], member) > 0.95, name
    for name in ("loss", "min-20%", "min-20%++"):
        assert 0.7 < auc(guesses.scores[name], member) < auc(guesses.scores[f"{name}-base"], member), name


def test_without_a_leak_it_knows_nothing() -> None:
    """|AUC - 1/2| stays below 4.9 standard deviations of the rank statistic under independence: 10^-6, two-sided,
    shared out over the 22 scores."""
    candidates, member, tools = setting(0.0)
    margin = 5.4 * np.sqrt((N + 1) / (12 * (N / 2) ** 2))
    for name, values in infer(OUTSIDER, candidates, tools).scores.items():
        assert abs(auc(values, member) - 0.5) < margin, name


def test_a_score_turned_round_would_be_noticed() -> None:
    candidates, member, tools = setting(2.0)
    for name, values in infer(OUTSIDER, candidates, tools).scores.items():
        assert auc(values, member) > 0.55 > 0.45 > auc(-values, member), name


def test_order_and_ids_do_not_matter() -> None:
    candidates, _, tools = setting(2.0)
    order = np.random.default_rng(3).permutation(N)
    shuffled = Candidates(
        tuple(f"other-{i}" for i in range(N)),
        tuple(candidates.silos[i] for i in order),
        tuple(candidates.texts[i] for i in order),
        candidates.tokens.take(order),
    )
    first = infer(OUTSIDER, candidates, tools).scores
    second = infer(OUTSIDER, shuffled, tools).scores
    for name in first:
        assert np.array_equal(first[name][order], second[name]), name


def test_each_silo_is_scored_under_its_own_upload() -> None:
    candidates, member, tools = setting(2.0)
    view = FakeView({silo: reading("upload", silo, round=1) for silo in SILOS})
    guesses = infer(view, candidates, tools)
    assert auc(guesses.scores["loss-base"], member) > 0.95
    assert sorted(guesses.reads) == [f"upload of {silo}, round 1" for silo in SILOS]
    counts = {silo: candidates.silos.count(silo) for silo in SILOS}
    tuned = {next(iter(source.silos)): n for source, n in tools.calls if source is not None}
    assert tuned == counts, "one pass per upload, over that silo's candidates only"
    wrong = FakeView({silo: reading("upload", "silo-0", round=1) for silo in SILOS})
    other = infer(wrong, candidates, tools).scores["loss-base"]
    away = np.array([silo != "silo-0" for silo in candidates.silos])
    assert auc(other[away], member[away]) < 0.65, "another silo's upload tells nothing: the test above can fail"


def test_one_forward_pass_per_model_and_candidate() -> None:
    candidates, _, tools = setting(1.0)
    infer(OUTSIDER, candidates, tools)
    assert sum(n for source, n in tools.calls if source is None) == N
    assert sum(n for source, n in tools.calls if source is not None) == N


def test_the_same_candidates_in_any_order_share_their_passes() -> None:
    """The passes are memoised by the tokens' digest, so they must be asked for in one order."""
    candidates, _, tools = setting(1.0)
    digests: list[set[str]] = []
    for order in (np.arange(N), np.random.default_rng(1).permutation(N)):
        seen: set[str] = set()

        class Noting(FakeTools):
            def token_stats(self, source: Reading | None, tokens: Tokens, seen: set[str] = seen) -> TokenStats:
                seen.add(tokens.digest)
                return super().token_stats(source, tokens)

        shuffled = Candidates(
            candidates.ids,
            tuple(candidates.silos[i] for i in order),
            tuple(candidates.texts[i] for i in order),
            candidates.tokens.take(order),
        )
        infer(OUTSIDER, shuffled, Noting(tools.member, tools.silo, 1.0))
        digests.append(seen)
    assert digests[0] == digests[1]
    assert len(digests[0]) == len(SILOS)


def test_a_query_interface_gives_no_distribution() -> None:
    candidates, member, tools = setting(2.0)
    guesses = infer(FakeView(dict.fromkeys(SILOS, reading("query"))), candidates, tools)
    assert {name for name in guesses.scores if "++" in name} == set()
    assert set(guesses.missing) == {f"min-{k}%++{s}" for k in (10, 20, 30) for s in ("", "-base")}
    assert all("query interface" in reason for reason in guesses.missing.values())
    for name in ("loss-base", *PAIRED):
        assert auc(guesses.scores[name], member) > 0.95, name
    assert auc(guesses.scores["accuracy-base"], member) > 0.9, "eleven tokens, each right or wrong"
    assert guesses.reads == ("queries of the released model",)


def test_without_first_choices_what_needs_them_is_missing_with_the_reason() -> None:
    candidates, member, tools = setting(2.0)

    class Prices(FakeTools):
        def token_stats(self, source: Reading | None, tokens: Tokens) -> TokenStats:
            return replace(super().token_stats(source, tokens), first=None)

    guesses = infer(OUTSIDER, candidates, Prices(tools.member, tools.silo, 2.0))
    assert set(guesses.missing) == {"accuracy", "accuracy-base", "ez"}
    assert all("first choice" in reason for reason in guesses.missing.values())
    assert not set(guesses.missing) & set(guesses.scores)
    assert auc(guesses.scores["wbc"], member) > 0.95


def test_a_silo_that_did_not_open_gets_no_verdict() -> None:
    candidates, _, tools = setting(2.0)
    view = FakeView({"silo-0": reading("upload", "silo-0"), "silo-1": reading("upload", "silo-1"), "silo-2": None})
    guesses = infer(view, candidates, tools)
    shut = np.array(candidates.silos) == "silo-2"
    assert (guesses.scores["loss-base"][shut] == 0).all()
    for name in PAIRED:
        assert (guesses.scores[name][shut] == (0.5 if name == "ez" else 0)).all(), name
    assert (guesses.scores["loss-base"][~shut] != 0).all()
    assert "nothing of silo-2" in guesses.reads


def test_fractions_are_options() -> None:
    candidates, _, tools = setting(1.0)
    names = set(infer(OUTSIDER, candidates, tools, fractions=(0.05, 1.0), windows=(3,)).scores)
    assert {"min-5%", "min-100%", "min-5%++-base"} <= names
    assert "min-20%" not in names


@pytest.mark.parametrize("fractions", [(), (0.0,), (1.5,), (0.2, 0.2), (float("nan"),)])
def test_bad_fractions_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        mia.Config(fractions=fractions)


@pytest.mark.parametrize("windows", [(), (0,), (2, -1), (2.5,)])
def test_bad_windows_are_refused(windows: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        mia.Config(windows=windows)


def test_it_is_a_plug_in_that_imports_no_heavy_library() -> None:
    attack = mia.build(mia.Config())
    assert attack.game == "membership"
    assert attack.needs == {"query", "adapter", "upload"}
    assert mia.api == 1
    for name in (
        "mia.py",
        "scores.py",
        "inversion.py",
    ):
        tree = ast.parse((Path(mia.__file__).parent / name).read_text())
        top = {a.name for node in tree.body if isinstance(node, ast.Import) for a in node.names}
        top |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert not {m.split(".")[0] for m in top} & {"torch", "transformers", "peft", "scipy", "sklearn"}, name
