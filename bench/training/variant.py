"""Runs of their own: what differs from an ordinary run in what is trained on, asked about, or sent.

An attack that can't be made on an ordinary run names a variant (``Attack.variant``): canaries are planted (``audit``),
organisations are drawn (``participation``), or parties of the coalition deviate (``active``). A variant is one module
in ``bench/training/variants/`` with a ``Config`` and ``build(config, plugins) -> Variant``; ordinary runs never load
one.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from bench.core.errors import UsageError
from bench.spec.explain import validated
from bench.spec.run import PluginSpec

if TYPE_CHECKING:
    from bench.corpus.planting import Planting
    from bench.federation.carrier import Carrier
    from bench.federation.setup import Setup
    from bench.plugins.find import Plugins
    from bench.spec.run import RunSpec
    from bench.store.store import Store
    from bench.training.materials import Materials

NAMES = ("active", "audit", "participation")


class Variant:
    """Every method's default is what an ordinary run does."""

    def materials(self, materials: Materials, spec: RunSpec, seed: int) -> Materials:
        """The run's materials: with canaries among the records, say."""
        return materials

    def plantings(
        self, ordinary: Callable[[], Planting], materials: Materials, spec: RunSpec, seed: int, store: Store
    ) -> tuple[Planting, Planting]:
        """(what silos train on, what the game asks about). ``ordinary`` draws the ordinary planting, once. A secret of
        the variant's own is kept by ``store.draw_planting``."""
        planting = ordinary()
        return planting, planting

    def nominal_size(self, nominal: int, spec: RunSpec) -> int:
        """Records that a silo trains on, as the public settings say."""
        return nominal

    def carrier(self, carrier: Carrier, setup: Setup) -> Carrier:
        """How messages travel: a coalition that deviates replaces what its parties send."""
        return carrier


def build(named: PluginSpec | None, plugins: Plugins) -> Variant:
    """The variant that a run names; an ordinary one where it names none. Raises UsageError."""
    if named is None:
        return Variant()
    if named.name not in NAMES:
        raise UsageError(f"There is no run of the kind '{named.name}': known are {', '.join(NAMES)}.")
    module = import_module(f"bench.training.variants.{named.name}")
    found: Variant = module.build(validated(module.Config, named.config, named.name), plugins)
    return found
