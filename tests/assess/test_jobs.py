"""In which order a run's cells are attacked."""

from __future__ import annotations

from typing import Any

from bench.assess.jobs import ordered
from bench.spec.config import canonical_json
from bench.spec.run import PluginSpec, Row, RunSpec


def test_gradients_are_taken_before_losses_are_asked_for() -> None:
    """Whoever sees least goes first, whose answers are parts of others', each adversary in one go, and in each the
    attacks that take gradients."""

    class Takes:
        def __init__(self, gradients: bool) -> None:
            self.turn = 0 if gradients else 2

    run = RunSpec.model_construct()
    attacks = {"mia": False, "gradient": True, "source": False, "fedmia": True}
    rows = [
        Row.model_construct(run=run, attack=PluginSpec(name=name), adversary=adversary)
        for name in attacks
        for adversary in ("server", "user")
    ]
    built: Any = {canonical_json(PluginSpec(name=name)): Takes(gradients) for name, gradients in attacks.items()}
    found = [(row.adversary, row.attack.name) for row in ordered(rows, built)]
    names = ["gradient", "fedmia", "mia", "source"]
    assert found == [(adversary, name) for adversary in ("user", "server") for name in names]
