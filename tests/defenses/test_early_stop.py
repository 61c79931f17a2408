"""Early stopping: when a round ends and which adapter it gives, on losses made up and on the model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.core.errors import SiloBenchError
from bench.core.streams import State
from bench.defense.compose import fill
from bench.spec.run import LocalSpec
from defenses import early_stop
from defenses.trainers import early_stop as module
from defenses.trainers.early_stop import EarlyStopTrainer, mean_loss
from tests.defenses.training_play import job, some_tokens, start, tiny, train

TOKENS = some_tokens(10)


class Counting:
    """An adapter that is the number of steps made."""

    def __init__(self) -> None:
        self.made = 0

    def get_adapter(self) -> int:
        return self.made

    def set_adapter(self, values: int) -> None:
        self.made = values


def play(monkeypatch: Any, losses: list[float], every: int, patience: int, steps: int) -> tuple[int, int]:
    """(steps made, adapter at the end) where the loss after step i is ``losses[i - 1]``."""
    model = Counting()
    monkeypatch.setattr(module, "mean_loss", lambda m, tokens, batch: losses[m.made - 1])
    work = job(TOKENS, LocalSpec(steps=steps, batch=2))
    work.model = model  # type: ignore[assignment]
    made = 0
    for _ in EarlyStopTrainer(0.2, every, patience).steps(work):
        model.made += 1
        made += 1
    return made, model.made


@pytest.mark.parametrize(
    ("losses", "every", "patience", "made", "best"),
    [
        ([5, 4, 3, 2, 1, 0], 1, 1, 6, 6),  # it never rises
        ([5, 4, 4.5, 3, 2, 1], 1, 1, 3, 2),  # stops at the first that is no lower
        ([5, 4, 4.5, 3, 2, 1], 1, 2, 6, 6),  # patience gets over it
        ([5, 6, 7, 8, 9, 9], 1, 2, 3, 1),  # worse from the start: the first is sent all the same
        ([9, 5, 9, 4, 9, 6], 2, 1, 6, 4),  # every second step is looked at
        ([9, 5, 9, 7, 1, 1], 2, 1, 4, 2),
        ([4, 4, 4, 4, 4, 4], 1, 3, 4, 1),  # equal is no lower
        ([9, 9, 9, 5, 9, 6], 4, 1, 6, 4),  # and once more at the end
        ([9, 9, 9, 5, 9, 2], 4, 1, 6, 6),
        ([9, 9, 9, 9, 9, 7], 100, 1, 6, 6),
    ],
)
def test_when_it_stops_and_what_it_gives(monkeypatch, losses, every, patience, made, best) -> None:
    assert play(monkeypatch, losses, every, patience, 6) == (made, best)


@settings(max_examples=30)
@given(
    st.lists(st.floats(0, 9), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_it_gives_the_lowest_of_what_it_looked_at(losses, every, patience) -> None:
    with pytest.MonkeyPatch.context() as patch:
        made, given_step = play(patch, losses, every, patience, len(losses))
    looked = [s for s in range(1, made + 1) if s % every == 0 or s == made]
    assert given_step in looked
    assert losses[given_step - 1] == min(losses[s - 1] for s in looked)
    assert made == len(losses) or made % every == 0


def test_records_held_back_are_never_trained_on_in_any_round() -> None:
    state: State = {}
    trainer = EarlyStopTrainer(0.25, every=1, patience=5)
    used = set()
    for round in range(3):
        training, _ = train(trainer, job(TOKENS, round=round, state=state))
        used |= {row for batch in training.batches for row in batch}
    held = set(state["held"].tolist())
    assert len(held) == math.ceil(0.25 * 10)
    assert used == set(range(10)) - held


def test_how_many_are_held_back() -> None:
    for count, share, held in ((10, 0.2, 2), (10, 0.21, 3), (2, 0.9, 1), (5, 0.01, 1)):
        work = job(some_tokens(count))
        assert len(EarlyStopTrainer(share).held(work)) == held
    with pytest.raises(SiloBenchError, match="1 record"):
        EarlyStopTrainer().held(job(some_tokens(1)))


def test_the_choice_does_not_change_the_order_of_the_others() -> None:
    """Drawn beside the public stream: with another share the first draw of the stream is the same."""
    orders = []
    for share in (0.2, 0.5):
        work = job(TOKENS)
        EarlyStopTrainer(share).held(work)
        orders.append(work.order.permutation(10).tolist())
    assert orders[0] == orders[1] == job(TOKENS).order.permutation(10).tolist()


def test_the_mean_loss_is_that_of_the_records_whatever_the_batch() -> None:
    model = tiny()
    model.set_adapter(start())
    expected = model.stats(TOKENS).losses().mean()
    for batch in (1, 3, 100):
        assert mean_loss(model, TOKENS, batch) == pytest.approx(expected, rel=1e-5)


def test_on_the_model_it_gives_the_adapter_whose_loss_is_lowest() -> None:
    """At a rate that overshoots: recompute the held-back loss after every step, and compare."""
    model, trainer = tiny(), EarlyStopTrainer(0.3, every=1, patience=3)
    work = job(TOKENS, LocalSpec(epochs=6, batch=2, lr=0.03))
    seen: list[tuple[float, np.ndarray]] = []
    steps = trainer.steps

    def watched(watched_job):  # type: ignore[no-untyped-def]
        for number, rows in enumerate(steps(watched_job)):
            if number:
                seen.append((mean_loss(model, probe, 8), model.get_adapter()))
            yield rows

    probe = TOKENS.take(trainer.held(work))
    trainer.steps = watched  # type: ignore[method-assign]
    training, after = train(trainer, work)
    assert training.steps < 6 * 4  # it stopped
    best = min(seen, key=lambda pair: pair[0])
    np.testing.assert_array_equal(after, best[1])
    assert np.linalg.norm(after - start()) > 0


def test_the_defense() -> None:
    parts = fill(early_stop.build(early_stop.Config()))
    assert isinstance(parts.trainer, EarlyStopTrainer)
    assert parts.promises == ()
    for wrong in ({"share": 0}, {"share": 1}, {"every": 0}, {"patience": 0}, {"validation": 0.1}):
        with pytest.raises(ValidationError):
            early_stop.Config(**wrong)
