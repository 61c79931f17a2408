"""Asks what the records held that a silo trained on in a round."""

from __future__ import annotations

from collections.abc import Sequence

from bench import games
from bench.assess.plays.table import Assessment, Seat, Table, tools
from bench.attack.attack import Reconstruction, Target
from bench.attack.by_game import ReconstructionAttack
from bench.games import baselines, reconstruction
from bench.spec.result import Status
from bench.training.training import training_tokens


def play(table: Table, name: str, attack: ReconstructionAttack, adversary: str, seats: Sequence[Seat]) -> Assessment:
    """Every victim's rounds that the attack is asked for; a target without an answer counts as a failure."""
    targets: list[Target] = []
    answers: list[Reconstruction] = []
    rounds = getattr(attack, "rounds", ReconstructionAttack.rounds)
    for seat in seats:
        asked = [t for r in rounds for v in seat.victims if (t := _target(table, r, v)) is not None]
        answers += attack.reconstruct(seat.view, asked, tools(table, name, adversary, seat))
        targets += asked
    if not targets:
        return Assessment("not-applicable", note="no silo trained in the rounds that the attack is asked about")
    model = table.materials.model
    # what stands in front of every record is known to everybody: nobody is asked for it, and no guess gains by it
    population = table.materials.tokens(table.materials.pool.population).without_lead()
    guessed = baselines.no_update(targets, population, model.vocab_size)
    truth = [_trained(table, t) for t in targets]
    graded = reconstruction.grade(targets, truth, answers, guessed, model.decode, model.start)
    scored = games.leakage(graded.sheet)
    reads = tuple(dict.fromkeys(a.reads for a in answers if a.reads))
    status: Status = "void" if scored.void else "ok"
    return Assessment(status, reads, scored.leakage, graded.sheet.to_json(), scored.note, graded.details)


def _target(table: Table, round: int, victim: str) -> Target | None:
    transcript = table.run.transcript
    training = transcript.training(round).get(victim) if round <= transcript.committed() else None
    if training is None or not any(training.batches):
        return None
    return Target(round, victim, len({row for batch in training.batches for row in batch}), training.steps)


def _trained(table: Table, target: Target) -> list[tuple[int, ...]]:
    """The own token ids of the records that the target's silo trained on in its round."""
    run = table.run
    tokens = training_tokens(run.case, target.silo)
    batches = run.transcript.training(target.round)[target.silo].batches
    rows = sorted({row for batch in batches for row in batch})
    own = tokens.own()
    return [tuple(int(i) for i in own[row]) for row in rows]
