"""A federation whose losses and gradients are drawn, not computed: what the attacks on its rounds must find is known.

A record's gradient at an adapter is a random vector that depends on both. A silo's step in a round is minus the sum of
the gradients, at the adapter that the round starts from, of the records it trained on; its model's loss on them is
lower by half of ``gain`` for each round, and their gradients at the last global adapter are half as long. Without a
leak silos train on other records than those that are asked about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from bench.attack.attack import Attack, Candidates, Guesses, Own, Tools
from bench.core.tokens import Tokens, TokenStats
from bench.core.update import Layout
from bench.defense.public import Public, alike
from bench.stats import auc, null_margin
from bench.view.view import Reading, View, adapter_handle

LAYOUT = Layout(("0.q.lora_A", "0.q.lora_B", "0.v.lora_A", "0.v.lora_B"), ((4, 150), (200, 4), (4, 150), (120, 4)))
SILOS = ("silo-0", "silo-1", "silo-2")
PER_SILO, POPULATION, ROUNDS, LENGTH = 60, 60, 3, 8
N = PER_SILO * len(SILOS)


def tokens_of(rows: Sequence[int] | np.ndarray) -> Tokens:
    """Records by number; the number is the first token, and the others depend on it."""
    ids = np.array([[row, *np.random.default_rng(row).integers(1000, 2000, LENGTH - 1)] for row in rows], np.int32)
    ids = ids.reshape(len(rows), LENGTH)
    predicted = np.tile(np.arange(LENGTH) > 0, (len(rows), 1))
    return Tokens(ids, np.full(len(rows), LENGTH, np.int32), predicted, np.full(len(rows), -1, np.int32))


class World(Tools):
    """Records 0..N-1 are the silos' candidates, the next ``POPULATION`` the population, and those from 10,000 on are
    nobody's: what silos train on where nothing leaks."""

    def __init__(self, folder: Path, leak: bool = True, seed: int = 0, gain: float = 2.0) -> None:
        self.folder, self.gain, self.seed = folder, gain, seed
        rng = np.random.default_rng(seed)
        self.silo = np.repeat(SILOS, PER_SILO)
        self.member = np.concatenate([rng.permutation(PER_SILO) < PER_SILO // 2 for _ in SILOS])
        self.trained = {
            s: np.flatnonzero(self.member & (self.silo == s)) if leak else 10_000 + 100 * k + np.arange(PER_SILO // 2)
            for k, s in enumerate(SILOS)
        }
        self.population = tokens_of(range(N, N + POPULATION))
        self.population_texts = tuple(f"text {i}" for i in range(N, N + POPULATION))
        self.model: Any = type("Model", (), {"layout": LAYOUT})()
        self.rng = np.random.default_rng(0)
        self.asked: list[tuple[str, int]] = []
        self._gradients: dict[tuple[int, int], np.ndarray] = {}
        self._files = 0
        self.initial = self._draw(0).astype(np.float32)
        for name, tensor in LAYOUT.tensors(self.initial):
            if "lora_B" in name:
                tensor[...] = 0
        self.globals: list[np.ndarray] = []
        self.own_models: dict[tuple[str, int], np.ndarray] = {}
        before = self.initial
        for round in range(ROUNDS):
            for s in SILOS:
                step = -0.1 * np.sum([self.gradient(before, i) for i in self.trained[s]], axis=0)
                self.own_models[s, round] = (before + step).astype(np.float32)
            before = np.mean([self.own_models[s, round] for s in SILOS], axis=0).astype(np.float32)
            self.globals.append(before)

    def _draw(self, *key: int) -> np.ndarray:
        return np.random.default_rng((self.seed, *key)).normal(0, 0.05, LAYOUT.size)

    def gradient(self, at: np.ndarray, record: int) -> np.ndarray:
        """Of the record at an adapter; large for hard records."""
        key = (int(adapter_handle(at)[:12], 16), int(record))
        if key not in self._gradients:
            size = self.difficulty(record)
            if len(self.globals) == ROUNDS and np.array_equal(at, self.globals[-1]):
                size *= 0.5 if any(record in rows for rows in self.trained.values()) else 1.0
            self._gradients[key] = (self._draw(1, *key) * size).astype(np.float32)
        return self._gradients[key]

    def difficulty(self, record: int) -> float:
        return float(np.exp(np.random.default_rng((self.seed, 2, int(record))).normal(0, 0.2)))

    # -- what tools give -------------------------------------------------------------------------------------------

    def token_stats(self, source: Reading | None, tokens: Tokens) -> TokenStats:
        handle = "base" if source is None else source.handle
        self.asked.append((handle, len(tokens)))
        logp = np.zeros(tokens.ids.shape, np.float32)
        for row, ids in enumerate(tokens.ids):
            logp[row] = -self._loss(source, int(ids[0])) + 0.05 * np.sin(ids)
        logp *= tokens.predicted
        if source is not None and source.kind == "query":
            return TokenStats(logp, tokens.predicted, first=np.zeros_like(tokens.predicted))
        flat = tokens.predicted.astype(np.float32)
        return TokenStats(logp, tokens.predicted, -5 * flat, 2 * flat, first=np.zeros_like(tokens.predicted))

    def _loss(self, source: Reading | None, record: int) -> float:
        loss = 4 * self.difficulty(record)
        if source is None:
            return loss
        silos = source.silos if source.kind == "upload" else SILOS
        whose = [SILOS.index(s) for s in sorted(silos)]
        noise = np.random.default_rng((self.seed, 3, record, source.round, *whose)).normal(0, 0.3)
        share = 1.0 if source.kind == "upload" else 0.45  # what is left of one silo's training in the mean
        fall = share * self.gain * (source.round + 1) / 2 * sum(record in self.trained[s] for s in silos)
        return loss - 0.1 * (source.round + 1) * self.difficulty(record) - fall + noise

    def record_gradients(self, at: np.ndarray | None, tokens: Tokens) -> Iterator[np.ndarray]:
        assert at is not None
        self.asked.append((f"gradients at {adapter_handle(at)}", len(tokens)))
        return (self.gradient(at, int(ids[0])) for ids in tokens.ids)

    # -- what a coalition reads ------------------------------------------------------------------------------------

    def view(self, adversary: str) -> View:
        """Of ``user``, ``outsider``, ``silo`` (silo-0), ``server``, ``server+silo``, ``all-but-one`` (but silo-1)."""
        uploads = {"server": SILOS, "server+silo": SILOS[1:], "all-but-one": ("silo-1",)}.get(adversary, ())
        victims = ("silo-1",) if adversary in ("silo", "server+silo", "all-but-one") else SILOS
        inside = adversary not in ("user", "outsider")
        readings: list[Reading] = []
        known = self._known
        for round in range(ROUNDS) if inside else range(ROUNDS - 1, ROUNDS) if adversary == "outsider" else ():
            readings.append(self._reading("adapter", round, (), self.globals[round]))
        for round in range(ROUNDS):
            before = known[round]
            for s in uploads:
                readings.append(self._reading("upload", round, (s,), self.own_models[s, round], before))
        handle = adapter_handle(self.globals[-1])
        readings.append(Reading("query", ROUNDS - 1, frozenset(), "test", handle=handle))
        public = Public(alike(LAYOUT), SILOS, dict.fromkeys(SILOS, 1), ROUNDS, (SILOS,) * ROUNDS, 0)
        return View(
            adversary, frozenset(), victims, public, {}, tuple(readings), (), self.folder, known[0] if inside else None
        )

    @cached_property
    def _known(self) -> list[Path]:
        return [self._file(adapter=values) for values in (self.initial, *self.globals)]

    def _reading(
        self, kind: Any, round: int, silos: tuple[str, ...], adapter: np.ndarray, before: Path | None = None
    ) -> Reading:
        path = self._file(adapter=adapter)
        handle = adapter_handle(adapter)
        return Reading(kind, round, frozenset(silos), "test", (), handle, path=path, before_path=before)

    def _file(self, **tensors: np.ndarray) -> Path:
        self._files += 1
        path = self.folder / f"{self._files}.safetensors"
        save_file(tensors, path)
        return path

    def holds(self, *silos: str) -> World:
        """The same, as lent to a coalition with those silos."""
        rows = np.flatnonzero(np.isin(self.silo, silos))
        trained = np.array([any(r in self.trained[s] for s in silos) for r in rows])
        self.own = Own(tokens_of(rows), tuple(f"text {r}" for r in rows), tuple(self.silo[rows]), trained)
        return self

    # -- the game --------------------------------------------------------------------------------------------------

    def candidates(self, view: View, order: np.ndarray | None = None) -> tuple[Candidates, np.ndarray]:
        """Those of the view's victims, and which of them are members."""
        rows = np.flatnonzero(np.isin(self.silo, view.victims))
        rows = np.random.default_rng(9).permutation(rows) if order is None else rows[order]
        ids = tuple(f"c{k}" if order is None else f"other-{k}" for k in range(len(rows)))
        asked = Candidates(ids, tuple(self.silo[rows]), tuple(f"text {r}" for r in rows), tokens_of(rows))
        return asked, self.member[rows]


def play(attack: Attack, world: World, adversary: str) -> tuple[Guesses, dict[str, float]]:
    """The guesses, and the AUC of each score."""
    view = world.view(adversary)
    asked, member = world.candidates(view)
    guesses = attack.infer(view, asked, world)
    for name, values in guesses.scores.items():
        assert values.shape == (len(asked.ids),), name
        assert np.isfinite(values).all(), name
    return guesses, {name: float(auc(values, member).value or 0) for name, values in guesses.scores.items()}


def assert_chance(attack: Attack, world: World, adversary: str) -> None:
    """Every score's AUC lies within the margin that chance leaves once in 10^6 plays of all of them."""
    view = world.view(adversary)
    asked, member = world.candidates(view)
    scores = attack.infer(view, asked, world).scores
    for name, values in scores.items():
        value = auc(values, member).value
        assert value is not None
        margin = null_margin(member, scores=values, p=1e-6 / len(scores))
        assert abs(value - 0.5) <= margin, f"{name}: {value}"


def assert_order_is_irrelevant(attack: Attack, world: World, adversary: str) -> None:
    view = world.view(adversary)
    count = int(np.isin(world.silo, view.victims).sum())
    straight, shuffled = np.arange(count), np.random.default_rng(4).permutation(count)
    first = attack.infer(view, world.candidates(view, straight)[0], world).scores
    second = attack.infer(view, world.candidates(view, shuffled)[0], world).scores
    assert set(first) == set(second)
    for name in first:
        np.testing.assert_allclose(first[name][shuffled], second[name], rtol=1e-9, atol=1e-9, err_msg=name)
