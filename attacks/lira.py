"""Membership by LiRA: does the record's confidence look like that of models with it, or of models without it?

The likelihood-ratio attack (Carlini et al. 2022, "Membership inference attacks from first principles"): under shadow
federations that trained on a record, and under those that did not, its logit-scaled confidence is taken as Gaussian.
Online, the score is the ratio of both densities at the target's confidence; offline, only shadows without the record
are used, and the score says how far above them the target is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from attacks import shadowing
from attacks.shadowing import Bools, Floats
from bench.attack.attack import Attack, Candidates, Guesses, Tools
from bench.attack.by_game import MembershipAttack
from bench.spec.config import Config as BaseConfig

if TYPE_CHECKING:
    from bench.view.view import View

api = 1
version = 1

Variance = Literal["auto", "fixed", "per-example"]
#: shadows from which on each example has a variance of its own (section VI-B)
ENOUGH = 64
#: losses are taken as at least this, in nats per token: a confidence of 1 has no logit
SURE = 1e-7
#: deviations are taken as at least this, in nats: what float32 log-probabilities resolve
SHARP = 1e-5


class Config(BaseConfig):
    """``models``: shadow federations. ``variance``: of each example by itself, or one for all (``fixed``); ``auto``
    takes the former from 64 shadows on."""

    models: int = Field(8, ge=2, le=256)
    variance: Variance = "auto"


def scores(
    target: Floats,
    references: Floats,
    is_member_of_reference: Bools,
    online: bool = True,
    variance: Variance = "auto",
) -> Floats:
    """(candidates,) LiRA's score from likelihoods in (0, 1]; higher = more likely a member.

    target: (candidates,); references and is_member_of_reference: (candidates, models). ``compare`` after ``confidence``
    (the paper's equation 4 and algorithm 1). Raises ValueError for malformed input.
    """
    likelihood, by_model, member = shadowing.checked(target, references, is_member_of_reference)
    return compare(confidence(likelihood), confidence(by_model), member, online, variance)


def confidence(likelihood: Floats) -> Floats:
    """phi = log(p / (1 - p)), the logit of likelihoods p in (0, 1], p taken as at most exp(-1e-7). Raises ValueError
    outside of that range."""
    p = np.asarray(likelihood, np.float64)
    if p.size and not 0 < p.min() <= p.max() <= 1:
        raise ValueError("likelihoods lie above 0 and not above 1")
    loss = np.maximum(-np.log(p), SURE)
    phi: Floats = -loss - np.log(-np.expm1(-loss))
    return phi


def compare(
    target: Floats,
    references: Floats,
    is_member_of_reference: Bools,
    online: bool = True,
    variance: Variance = "auto",
) -> Floats:
    """(candidates,) scores from confidences of any real size, shapes as in ``scores``.

    Online: log N(phi; mu_in, sd_in) - log N(phi; mu_out, sd_out), algorithm 1, in nats. Offline: -log Pr[Z > phi] with
    Z of mu_out and sd_out, which orders as the paper's 1 - Pr[Z > phi] and does not saturate at 1.

    ``variance``: "fixed" pools the deviations of all candidates from their own means, with one sd for models with and
    one for models without the candidate; "per-example" takes each candidate's own (unbiased), and the pooled one where
    it has fewer than two models. Deviations are at least 1e-5. A candidate that every reference trained on, or none,
    lacks one mean: it is the other one, shifted by the mean difference over the candidates that have both. Raises
    ValueError for malformed input, where that mean is needed and no candidate has both, and where no candidate has two
    references of one kind to tell a deviation from.
    """
    phi, known, member = shadowing.checked(target, references, is_member_of_reference)
    if variance not in ("auto", "fixed", "per-example"):
        raise ValueError(f"variance is auto, fixed or per-example, not {variance!r}")
    own = variance == "per-example" or (variance == "auto" and known.shape[1] >= ENOUGH)
    inside, outside = _fit(known, member), _fit(known, ~member)
    mu_out = _means(outside, inside)
    sd_out = outside.deviation(inside, own)
    if not online:
        from scipy.special import log_ndtr

        surprise: Floats = -log_ndtr(-(phi - mu_out) / sd_out)
        return surprise
    mu_in = _means(inside, outside)
    sd_in = inside.deviation(outside, own)
    ratio: Floats = _log_density(phi, mu_in, sd_in) - _log_density(phi, mu_out, sd_out)
    return ratio


@dataclass(frozen=True)
class _Gaussians:
    """Of models of one kind, per candidate: mean (NaN without one), sum of squared deviations, degrees of freedom."""

    mean: Floats
    squares: Floats
    freedom: Floats

    def deviation(self, other: _Gaussians, own: bool) -> Floats:
        """(candidates,) standard deviations: pooled over the candidates, or their ``own`` where there is one."""
        squares, freedom = self.squares.sum(), self.freedom.sum()
        if not freedom:
            squares, freedom = other.squares.sum(), other.freedom.sum()
        if not freedom:
            raise ValueError("no candidate has two references of one kind: their spread is unknown")
        variance = np.full(len(self.mean), squares / freedom)
        if own:
            np.divide(self.squares, self.freedom, out=variance, where=self.freedom > 0)
        deviation: Floats = np.maximum(np.sqrt(variance), SHARP)
        return deviation


def _fit(known: Floats, mask: Bools) -> _Gaussians:
    mean, count = shadowing.mean_where(known, mask)
    squares = np.where(mask, np.square(known - np.where(count > 0, mean, 0.0)[:, None]), 0.0).sum(axis=1)
    return _Gaussians(mean, squares, np.maximum(count - 1, 0).astype(np.float64))


def _means(wanted: _Gaussians, other: _Gaussians) -> Floats:
    """(candidates,) means of one kind of models, taken from the other kind where a candidate has none of the first."""
    lacking = np.isnan(wanted.mean)
    if not lacking.any():
        return wanted.mean
    both = ~lacking & ~np.isnan(other.mean)
    if not both.any():
        raise ValueError("no candidate has references with and without it: what training changes is unknown")
    return np.where(lacking, other.mean + np.mean((wanted.mean - other.mean)[both]), wanted.mean)


def _log_density(phi: Floats, mean: Floats, deviation: Floats) -> Floats:
    density: Floats = -0.5 * np.square((phi - mean) / deviation) - np.log(deviation) - 0.5 * np.log(2 * np.pi)
    return density


class Lira(MembershipAttack):
    """Each victim's candidates under that victim's own upload where one opened, else under the last adapter."""

    needs = frozenset({"query", "adapter", "upload"})

    def __init__(self, config: Config) -> None:
        self.config = config
        self.shadows = config.models

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        """``lira-online`` and ``lira-offline`` of every candidate; what two equal Gaussians and their mean would give
        where nothing of its silo opened."""
        evidence = shadowing.gather("lira", view, candidates, tools.shadows)
        n = len(candidates.ids)
        found = {"lira-online": np.zeros(n), "lira-offline": np.full(n, np.log(2))}
        if not evidence.models:
            return Guesses(found, evidence.reads)
        rows = np.concatenate([models.rows for models in evidence.models])
        parts = [
            shadowing.likelihoods(tools, (models.target, *models.references), candidates.tokens.take(models.rows))
            for models in evidence.models
        ]
        known = np.concatenate(parts)
        for name, online in (("lira-online", True), ("lira-offline", False)):
            found[name][rows] = scores(known[:, 0], known[:, 1:], evidence.member[rows], online, self.config.variance)
        return Guesses(found, evidence.reads)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Lira(config)
