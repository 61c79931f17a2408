"""The membership game's secret: which candidates are trained on.

Of each silo's candidate clusters a fixed share is drawn, whole clusters, by the game's secret generator. The number per
silo is fixed beforehand, and nothing about a record decides whether it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from bench.core.errors import SiloBenchError, UsageError
from bench.core.streams import SecretStreams
from bench.spec import canonical as form
from bench.spec.foreign import Foreign

FORMAT, VERSION = "silobench-planting", 1


@dataclass(frozen=True)
class Planting:
    """Per silo the ids of the candidates that were trained on, and of those that were not; each sorted."""

    id: str
    members: Mapping[str, tuple[str, ...]]
    nonmembers: Mapping[str, tuple[str, ...]]

    def is_member(self, candidate: str) -> bool:
        """Whether ``candidate`` was trained on. Raises KeyError for an id that is no candidate."""
        for side, answer in ((self.members, True), (self.nonmembers, False)):
            if any(candidate in ids for ids in side.values()):
                return answer
        raise KeyError(candidate)

    def to_json(self) -> str:
        """Canonical text."""
        sides = {"members": self.members, "nonmembers": self.nonmembers}
        held = {side: {silo: list(ids) for silo, ids in values.items()} for side, values in sides.items()}
        return form.write({"format": FORMAT, "version": VERSION, "id": self.id, **held})

    @classmethod
    def from_json(cls, text: str) -> Planting:
        """Parse text from anybody. Raises UsageError on anything that ``to_json`` does not write."""
        return form.read(_Text, text, FORMAT, _understood)


_Held = dict[form.Label, form.Many[form.Label]]


class _Text(Foreign):
    format: Literal["silobench-planting"]
    version: Literal[1]
    id: form.Label
    members: _Held
    nonmembers: _Held


def _understood(value: _Text) -> Planting:
    ids = [i for side in (value.members, value.nonmembers) for held in side.values() for i in held]
    if len(set(ids)) < len(ids):
        raise SiloBenchError("it names a candidate twice")
    if set(value.members) != set(value.nonmembers):
        raise SiloBenchError("it gives members and non-members for different silos")
    return Planting(value.id, MappingProxyType(value.members), MappingProxyType(value.nonmembers))


def plant(
    id: str, silos: Mapping[str, Sequence[str]], clusters: Mapping[str, int], share: float, secret: SecretStreams
) -> Planting:
    """Draw the members: of each silo's C clusters of candidates, share x C rounded to the nearest (halves up).

    ``silos``: candidate ids per silo; ``clusters``: the cluster of each. Raises UsageError where that leaves a silo
    without members or without non-members, SiloBenchError where a cluster is divided between silos.
    """
    generator = secret.generator("planting")
    members: dict[str, tuple[str, ...]] = {}
    nonmembers: dict[str, tuple[str, ...]] = {}
    home: dict[int, str] = {}
    for silo in sorted(silos):
        groups: dict[int, list[str]] = {}
        for candidate in sorted(silos[silo]):
            groups.setdefault(clusters[candidate], []).append(candidate)
        for cluster in groups:
            if home.setdefault(cluster, silo) != silo:
                raise SiloBenchError(f"cluster {cluster} has candidates in {home[cluster]} and in {silo}")
        drawn = _draw(silo, len(groups), share, generator)
        held = list(groups.values())
        members[silo] = tuple(sorted(i for g, ids in enumerate(held) if drawn[g] for i in ids))
        nonmembers[silo] = tuple(sorted(i for g, ids in enumerate(held) if not drawn[g] for i in ids))
    return Planting(id, MappingProxyType(members), MappingProxyType(nonmembers))


@dataclass(frozen=True)
class Queries:
    """What an attack is asked: ``opaque`` ids, shuffled; ``candidates`` and ``silos`` in the same order, for the
    game.
    """

    opaque: tuple[str, ...]
    candidates: tuple[str, ...]
    silos: tuple[str, ...]


def queries(planting: Planting, victims: Sequence[str], rng: np.random.Generator) -> Queries:
    """The candidates of the silos ``victims``, members and others alike, in an order and under ids that say nothing."""
    asked = sorted((i, v) for v in victims for i in (*planting.members[v], *planting.nonmembers[v]))
    order = rng.permutation(len(asked))
    opaque = tuple(f"c{k}" for k in range(len(asked)))
    return Queries(opaque, tuple(asked[k][0] for k in order), tuple(asked[k][1] for k in order))


def _draw(silo: str, count: int, share: float, generator: np.random.Generator) -> np.ndarray:
    chosen = math.floor(share * count + 0.5)
    if not 0 < chosen < count:
        kind = "members" if chosen == 0 else "non-members"
        raise UsageError(
            f"A share of {share:g} of {silo}'s {count} clusters of candidates leaves no {kind}: "
            "raise pool.candidates or bring pool.share nearer to 0.5."
        )
    drawn = np.zeros(count, dtype=np.bool_)
    drawn[generator.permutation(count)[:chosen]] = True
    return drawn
