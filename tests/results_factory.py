"""Results for tests, made by hand: no run is behind them."""

from __future__ import annotations

from typing import Any

from bench.spec.config import digest
from bench.spec.result import Claim, Leakage, Result, Utility


def run_spec(defense: str = "fedavg", **changes: Any) -> dict[str, Any]:
    """A training's spec as it stands in a result; ``changes`` by dotted key."""
    parts = [{"name": name, "config": {}} for name in defense.split("+")]
    spec: dict[str, Any] = {
        "schema_version": 1,
        "task": {"name": "reviews", "config": {}},
        "model": {"name": "small-lm", "revision": None, "dtype": "float32", "quantize": "none"},
        "pool": {"candidates": 60, "share": 0.5, "max_tokens": 48},
        "federation": {"silos": 3, "rounds": 3, "release": "final"},
        "defense": parts,
        "behaviour": "passive",
        "secret_seed": None,
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            spec[section][name] = value
        else:
            spec[section] = value
    return spec


def auc(value: float | None, low: float | None = None, high: float | None = None, **changes: Any) -> Leakage:
    n = {"members": 90, "nonmembers": 90}
    return Leakage(**{"name": "auc", "value": value, "low": low, "high": high, "n": n, **changes})


def result(**changes: Any) -> Result:
    """One result; its ids follow from its task, defense, attack, adversary, spec and seed."""
    values: dict[str, Any] = {
        "seed": 0,
        "status": "ok",
        "task": "reviews",
        "defense": "fedavg",
        "attack": "mia",
        "adversary": "outsider",
        "fingerprint": "f" * 64,
        "reads": ("released adapter, round 2",),
        "leakage": (auc(0.93, 0.89, 0.962),),
        "utility": (Utility(name="perplexity", value=20.125, base=28.31, low=19.0, high=21.25, n=60),),
        "cost": {
            "up_per_silo_round": 1_843_200.0,
            "down_per_silo_round": 3_686_400.0,
            "phases": {"train": {"wall_s": 50.0}, "channel:upload": {"wall_s": 0.5}, "channel:sum": {"wall_s": 0.25}},
        },
        "claim": Claim(),
        "learned": True,
        "provenance": {"preset": "quick", "dirty": False},
    }
    spec = changes.pop("spec", None) or {"run": run_spec(changes.get("defense", "fedavg"))}
    values.update(changes, spec=spec)
    run = digest({"run": spec["run"], "seed": values["seed"]})
    row = [values["task"], values["attack"], values["adversary"], spec]
    defaults = {"run": run, "row": digest(row), "result": digest([row, values["seed"]])}
    return Result.model_validate({**defaults, **values})
