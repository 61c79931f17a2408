"""What scoring a transcript needs beside it: the training's spec, its seed and its plantings. No view holds it."""

from __future__ import annotations

from typing import Any

from bench.core.errors import UsageError
from bench.core.files import write_text
from bench.corpus.planting import Planting
from bench.spec.config import canonical_json
from bench.spec.run import RunSpec
from bench.training.case import Plantings
from bench.transcript.manifest import json_object
from bench.transcript.transcript import Transcript


def save_origin(transcript: Transcript, spec: RunSpec, seed: int, plantings: Plantings) -> None:
    """Keep beside the truth what scoring a transcript needs: spec, seed and planting. No view holds it. ``trained``:
    what silos trained on, where the game asks about something else."""
    trained, asked = plantings
    value: dict[str, Any] = {"spec": spec.model_dump(mode="json"), "seed": seed, "planting": asked.to_json()}
    if trained is not asked:
        value["trained"] = trained.to_json()
    path = transcript.root / "truth" / "origin.json"
    if not path.exists():
        write_text(path, canonical_json(value))


def read_origin(transcript: Transcript) -> tuple[RunSpec, int, Plantings]:
    """Spec, seed and plantings of a transcript from anywhere. Raises UsageError where they are missing or malformed."""
    path = transcript.root / "truth" / "origin.json"
    if not path.exists():
        raise UsageError(
            f"{transcript.root} has no truth/origin.json (spec, seed, planting), so that nothing can be scored on it."
        )
    value = json_object(path)
    try:
        asked = Planting.from_json(str(value["planting"]))
        trained = Planting.from_json(str(value["trained"])) if "trained" in value else asked
        return RunSpec.model_validate(value["spec"]), int(value["seed"]), (trained, asked)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is malformed: {type(error).__name__} in spec, seed or planting.") from None
