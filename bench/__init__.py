"""SiloBench: what plug-ins may rely on (``api = 1``), loaded lazily so that importing this stays cheap."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
API = 1

_HOME = {
    "Aggregator": "bench.defense.aggregator",
    "Assets": "bench.assets.assets",
    "Attack": "bench.attack.attack",
    "Candidate": "bench.defense.channel",
    "Candidates": "bench.attack.attack",
    "CannotOpen": "bench.core.errors",
    "Channel": "bench.defense.channel",
    "Config": "bench.spec.config",
    "Defense": "bench.defense.compose",
    "Endpoint": "bench.defense.channel",
    "Flow": "bench.defense.flow",
    "Form": "bench.core.update",
    "Grid": "bench.core.update",
    "Guesses": "bench.attack.attack",
    "Knowledge": "bench.defense.channel",
    "Layout": "bench.core.update",
    "Mechanism": "bench.defense.parts",
    "Message": "bench.defense.channel",
    "OpenContext": "bench.defense.contexts",
    "Opened": "bench.defense.channel",
    "Outgoing": "bench.defense.channel",
    "Plan": "bench.defense.aggregator",
    "Promise": "bench.defense.parts",
    "Public": "bench.defense.public",
    "Reading": "bench.view.view",
    "Reconstruction": "bench.attack.attack",
    "Record": "bench.corpus.task",
    "RecordsPart": "bench.defense.parts",
    "RoundContext": "bench.defense.contexts",
    "Secret": "bench.corpus.task",
    "SecretStreams": "bench.core.streams",
    "SiloBenchError": "bench.core.errors",
    "ServerStep": "bench.defense.aggregator",
    "Stage": "bench.defense.channel",
    "State": "bench.core.streams",
    "SumChannel": "bench.defense.sum_channel",
    "Target": "bench.attack.attack",
    "Task": "bench.corpus.task",
    "TokenStats": "bench.core.tokens",
    "Tokens": "bench.core.tokens",
    "Tools": "bench.attack.attack",
    "TrainJob": "bench.defense.parts",
    "Trainer": "bench.defense.parts",
    "Training": "bench.defense.parts",
    "Transform": "bench.defense.parts",
    "TransformContext": "bench.defense.contexts",
    "Update": "bench.core.update",
    "UsageError": "bench.core.errors",
    "View": "bench.view.view",
    "later": "bench.spec.config",
}
__all__ = ["API", "__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bench' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)
