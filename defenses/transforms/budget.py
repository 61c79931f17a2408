"""The budget of private defenses: an epsilon to calibrate noise to, or the noise itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from pydantic import Field, model_validator

from bench.core.errors import UsageError
from bench.core.parties import SERVER
from bench.defense.public import Public
from bench.privacy import MAX_CALIBRATED_EPSILON, calibrate, calibrate_skellam, default_delta
from bench.spec.config import Config


class NoiseConfig(Config):
    """Either ``epsilon`` at ``delta``, or ``sigma``; and ``clip``, the L2 norm that noise is measured in."""

    epsilon: float | None = Field(8.0, gt=0, le=MAX_CALIBRATED_EPSILON)
    sigma: float | None = Field(None, gt=0)
    clip: float = Field(1.0, gt=0)
    delta: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _sigma_replaces_the_default_epsilon(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("sigma") is not None and "epsilon" not in values:
            return {**values, "epsilon": None}
        return values

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.epsilon is None) == (self.sigma is None):
            raise ValueError("give either epsilon (and its noise is calibrated) or sigma, not both and not neither")
        return self


class BudgetConfig(NoiseConfig):
    """How much noise, and how far a silo's update may reach.

    ``epsilon``: the whole run's budget for one silo, at ``delta`` (None: 1 / (10 n), n the number of silos), from which
    the noise is calibrated. ``sigma``: the noise multiplier itself, in norms of an update, instead of an epsilon.
    ``clip``: the L2 norm that a silo's update is cut to.
    """

    sigma: float | None = Field(None, gt=0, le=1e6)
    clip: float = Field(1.0, gt=0, le=1e6)

    def budget(self, name: str) -> Budget:
        return Budget(name, self.epsilon, self.sigma, self.delta)


@dataclass(frozen=True)
class Budget:
    """``name``: of the defense, for messages. Either ``epsilon`` (with ``delta``) or ``sigma`` is given.

    Noise for an epsilon is calibrated to the silo that the public schedule calls most often. The schedule is public, so
    sitting a round out is no amplification, only budget left unspent.
    """

    name: str
    epsilon: float | None = None
    sigma: float | None = 1.0
    delta: float | None = None

    def public_delta(self, public: Public) -> float:
        """Raises UsageError for a delta of one's own above 1 / (10 n), n the number of silos."""
        n = len(public.silos)
        if self.delta is not None and self.delta > 1 / (10 * n):
            raise UsageError(
                f"{self.name}.delta is {self.delta:g}, and among {n} silos it must be at most 1/(10 n) = "
                f"{1 / (10 * n):.2g}: lower it or leave it out."
            )
        return default_delta(n) if self.delta is None else self.delta

    def noted(self, public: Public) -> dict[str, float]:
        """The delta that noise was calibrated to, for the accountant; nothing where sigma was given."""
        return {"delta": self.public_delta(public)} if self.sigma is None or self.delta is not None else {}

    def multiplier(self, public: Public) -> float:
        """Standard deviation of Gaussian noise over the norm of an update."""
        if self.sigma is not None:
            return self.sigma
        assert self.epsilon is not None
        return _gaussian(self.epsilon, self.public_delta(public), 1.0, most_rounds(public))

    def variance(self, public: Public, sensitivity: float, dimension: int) -> float:
        """Variance of Skellam noise on ``dimension`` integers whose vector has a norm of at most ``sensitivity``."""
        if self.sigma is not None:
            return (self.sigma * sensitivity) ** 2
        assert self.epsilon is not None
        return _skellam(self.epsilon, self.public_delta(public), sensitivity, dimension, most_rounds(public))


def most_rounds(public: Public) -> int:
    """The most rounds that the public schedule calls one silo in, at least 1."""
    return max(1, *(sum(name in called for called in public.participants) for name in public.silos))


# memoised, as every silo asks in every round
_gaussian, _skellam = lru_cache(maxsize=64)(calibrate), lru_cache(maxsize=64)(calibrate_skellam)


def others(coalition: frozenset[str], victim: str) -> bool:
    """Everybody but the silo itself."""
    return victim not in coalition


def others_but_the_server(coalition: frozenset[str], victim: str) -> bool:
    """Everybody but the silo itself and the server."""
    return victim not in coalition and SERVER not in coalition
