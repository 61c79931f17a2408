"""Membership by RMIA: is the record's likelihood raised more than that of records nobody trained on?

Robust membership inference (Zarifzadeh, Liu and Shokri 2024, "Low-cost high-power membership inference attacks"): the
likelihood of a candidate x under the target model over its marginal likelihood Pr(x), taken from shadow federations;
and the share of population records z over which that ratio wins. Online, shadows that trained on x and shadows that
did not give Pr(x); offline, only the latter do; ``rmia-base`` has the base model as its only reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attacks import shadowing
from attacks.shadowing import Bools, Floats
from bench.attack.attack import Attack, Candidates, Guesses, Tools
from bench.attack.by_game import MembershipAttack
from bench.core.errors import SiloBenchError
from bench.core.tokens import Tokens
from bench.spec.config import Config as BaseConfig

if TYPE_CHECKING:
    from bench.view.view import View

api = 1
version = 1

#: values of ``a`` that the shadows choose among
GRID = tuple(k / 10 for k in range(11))
#: the score of a candidate of whose silo nothing opened: half of the population is below it, for all that is known
UNKNOWN = 0.5


class Config(BaseConfig):
    """``models``: shadow federations; with 0 there is ``rmia-base`` only. ``offline_a``: a of the offline attack,
    chosen on the shadows where it is not given. ``gamma``: by what factor x must win over z. ``population``: at most so
    many records z."""

    models: int = Field(8, ge=0, le=256)
    offline_a: float | None = Field(None, ge=0, le=1)
    gamma: float = Field(1.0, gt=0, le=1000)
    population: int = Field(200, ge=1, le=100_000)


def scores(
    target: Floats,
    references: Floats,
    is_member_of_reference: Bools,
    target_population: Floats,
    reference_population: Floats,
    offline_a: float | None,
    gamma: float,
) -> Floats:
    """(candidates,) Pr over z of LR(x, z) >= gamma, in [0, 1] (the paper's equations 2 and 3): higher = more likely a
    member. LR(x, z) = (Pr(x|target) / Pr(x)) / (Pr(z|target) / Pr(z)).

    target: (candidates,); references and is_member_of_reference: (candidates, models); target_population: (records,);
    reference_population: (records, models), of records that no model trained on. All likelihoods in [0, 1].
    offline_a: a in [0, 1] of the offline attack, or None for the online one (``marginal``). gamma: above 0.
    Where Pr(x) is 0 the ratio is infinite, or 1 if Pr(x|target) is 0 too. Raises ValueError for malformed input.
    """
    x, by_model, member = shadowing.checked(target, references, is_member_of_reference)
    outside = np.zeros(np.shape(reference_population), np.bool_)
    z, z_by_model, _ = shadowing.checked(target_population, reference_population, outside)
    if z_by_model.shape[1] != by_model.shape[1] or not len(z):
        raise ValueError(f"expected a population (records, {by_model.shape[1]}), got {z_by_model.shape}")
    for values in (x, by_model, z, z_by_model):
        if values.size and not 0 <= values.min() <= values.max() <= 1:
            raise ValueError("likelihoods lie in [0, 1]")
    if not 0 < gamma < np.inf:
        raise ValueError(f"gamma is a number above 0, not {gamma}")
    ratio_x = _ratio(x, marginal(by_model, member, offline_a))
    ratio_z = _ratio(z, marginal(z_by_model, outside, offline_a))
    return np.searchsorted(np.sort(gamma * ratio_z), ratio_x, side="right") / len(ratio_z)


def marginal(references: Floats, member: Bools, offline_a: float | None) -> Floats:
    """(n,) Pr(x), the likelihood averaged over models that did and did not train on x in equal parts.

    Online (``offline_a`` None): the mean of the means over both kinds of references; where there is one kind only, as
    for population records, that one's mean. Offline: only references without x are used, and with them it is
    ((1 + a) Pr_out + (1 - a)) / 2, since Pr_in is about a Pr_out + (1 - a). Where every reference trained on x, the
    same line gives Pr_out from Pr_in, at least 0.
    """
    inside, _ = shadowing.mean_where(references, member)
    outside, _ = shadowing.mean_where(references, ~member)
    if offline_a is None:
        inside, outside = np.where(np.isnan(inside), outside, inside), np.where(np.isnan(outside), inside, outside)
        return (inside + outside) / 2
    if not 0 <= offline_a <= 1:
        raise ValueError(f"a is a number in [0, 1], not {offline_a}")
    drawn = inside + offline_a - 1
    derived = np.maximum(drawn, 0.0) / offline_a if offline_a else np.zeros_like(drawn)
    none = np.isnan(outside)
    return np.where(none, (inside + derived) / 2, ((1 + offline_a) * outside + (1 - offline_a)) / 2)


def _ratio(likelihood: Floats, expected: Floats) -> Floats:
    never = np.where(likelihood > 0, np.inf, 1.0)
    return np.divide(likelihood, expected, out=never, where=expected > 0)


@dataclass(frozen=True)
class Likelihoods:
    """Of the candidates (``rows``) whose silo's readings these are, and of the population under the same models."""

    rows: NDArray[np.int64]
    target: Floats
    references: Floats
    member: Bools
    target_population: Floats
    reference_population: Floats

    def score(self, offline_a: float | None, gamma: float) -> Floats:
        return scores(
            self.target,
            self.references,
            self.member,
            self.target_population,
            self.reference_population,
            offline_a,
            gamma,
        )

    def against(self, shadow: int) -> Likelihoods:
        """The shadow as the target, the other shadows as its references."""
        return Likelihoods(
            self.rows,
            self.references[:, shadow],
            np.delete(self.references, shadow, axis=1),
            np.delete(self.member, shadow, axis=1),
            self.reference_population[:, shadow],
            np.delete(self.reference_population, shadow, axis=1),
        )


def choose_a(known: Sequence[Likelihoods], gamma: float) -> float:
    """The a of ``GRID`` with the largest mean AUC of the offline attack on each shadow in turn, its references the
    other shadows: whose members are known. The target takes no part. 1 with fewer than two shadows."""
    shadows = known[0].references.shape[1]
    if shadows < 2:
        return 1.0
    played = [[part.against(k) for part in known] for k in range(shadows)]
    truth = [np.concatenate([part.member[:, k] for part in known]) for k in range(shadows)]

    def strength(a: float) -> float:
        guessed = (np.concatenate([part.score(a, gamma) for part in parts]) for parts in played)
        found = [shadowing.auc(values, member) for values, member in zip(guessed, truth, strict=True)]
        return float(np.mean([value for value in found if value is not None] or [0.5]))

    return max(GRID, key=lambda a: (round(strength(a), 9), a))


class Rmia(MembershipAttack):
    """Each victim's candidates under that victim's own upload where one opened, else under the last adapter."""

    needs = frozenset({"query", "adapter", "upload"})

    def __init__(self, config: Config) -> None:
        self.config = config
        self.shadows = config.models

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        """``rmia-online``, ``rmia-offline`` and ``rmia-base`` of every candidate."""
        population = shadowing.known_population(tools, self.config.population)
        if not len(population):
            raise SiloBenchError("rmia compares with records of the population, and there are none (pool.population)")
        gamma = self.config.gamma
        a = 1.0 if self.config.offline_a is None else self.config.offline_a
        bare = list(self._with_base(view, candidates, tools, population))
        found = {"rmia-base": _joined(candidates, ((part.rows, part.score(a, gamma)) for part in bare))}
        if not self.config.models:
            reads = [_read(view, silo) for silo in shadowing.by_silo(candidates)]
            why = "it needs shadow federations, and rmia.models is 0"
            return Guesses(found, tuple(dict.fromkeys(reads)), dict.fromkeys(("rmia-online", "rmia-offline"), why))
        evidence = shadowing.gather("rmia", view, candidates, tools.shadows)
        known = list(_with_shadows(evidence, candidates, tools, population))
        if known and self.config.offline_a is None:
            a = choose_a(known, gamma)
        for name, value in (("rmia-offline", a), ("rmia-online", None)):
            found[name] = _joined(candidates, ((part.rows, part.score(value, gamma)) for part in known))
        return Guesses(found, evidence.reads)

    def _with_base(self, view: View, candidates: Candidates, tools: Tools, population: Tokens) -> Iterable[Likelihoods]:
        """The base model as the one reference: it trained on no candidate."""
        for silo, rows in shadowing.by_silo(candidates).items():
            reading = view.last_adapter(silo)
            if reading is None:
                continue
            tuned, base = shadowing.likelihoods(tools, (reading, None), candidates.tokens.take(rows)).T
            z_tuned, z_base = shadowing.likelihoods(tools, (reading, None), population).T
            outside = np.zeros((len(rows), 1), np.bool_)
            yield Likelihoods(rows, tuned, base[:, None], outside, z_tuned, z_base[:, None])


def _with_shadows(
    evidence: shadowing.Evidence, candidates: Candidates, tools: Tools, population: Tokens
) -> Iterable[Likelihoods]:
    for models in evidence.models:
        readings = (models.target, *models.references)
        x = shadowing.likelihoods(tools, readings, candidates.tokens.take(models.rows))
        z = shadowing.likelihoods(tools, readings, population)
        yield Likelihoods(models.rows, x[:, 0], x[:, 1:], evidence.member[models.rows], z[:, 0], z[:, 1:])


def _read(view: View, silo: str) -> str:
    reading = view.last_adapter(silo)
    return f"nothing of {silo}" if reading is None else shadowing.describe(reading)


def _joined(candidates: Candidates, parts: Iterable[tuple[NDArray[np.int64], Floats]]) -> Floats:
    found = np.full(len(candidates.ids), UNKNOWN)
    for rows, values in parts:
        found[rows] = values
    return found


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Rmia(config)
