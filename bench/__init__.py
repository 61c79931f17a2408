"""SiloBench: what plug-ins may rely on (``api = 1``), loaded lazily so that importing this stays cheap."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
API = 1

_HOME = {
    "Aggregator": "bench.defense",
    "Assets": "bench.assets",
    "Attack": "bench.attack",
    "Candidate": "bench.channel",
    "Candidates": "bench.attack",
    "CannotOpen": "bench.errors",
    "Channel": "bench.channel",
    "Config": "bench.config",
    "Defense": "bench.defense",
    "Endpoint": "bench.channel",
    "Form": "bench.update",
    "Grid": "bench.update",
    "Guesses": "bench.attack",
    "Knowledge": "bench.channel",
    "Layout": "bench.update",
    "Mechanism": "bench.defense",
    "Message": "bench.channel",
    "OpenContext": "bench.defense",
    "Opened": "bench.channel",
    "Outgoing": "bench.channel",
    "Promise": "bench.defense",
    "Public": "bench.channel",
    "Reading": "bench.view",
    "Reconstruction": "bench.attack",
    "Record": "bench.task",
    "RecordsPart": "bench.defense",
    "RoundContext": "bench.defense",
    "Secret": "bench.task",
    "SecretStreams": "bench.streams",
    "SiloBenchError": "bench.errors",
    "Stage": "bench.channel",
    "SumChannel": "bench.channel",
    "Target": "bench.attack",
    "Task": "bench.task",
    "TokenStats": "bench.tokens",
    "Tokens": "bench.tokens",
    "Tools": "bench.attack",
    "TrainJob": "bench.defense",
    "Trainer": "bench.defense",
    "Training": "bench.defense",
    "Transform": "bench.defense",
    "TransformContext": "bench.defense",
    "Update": "bench.update",
    "UsageError": "bench.errors",
    "View": "bench.view",
}
__all__ = ["API", "__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bench' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)
