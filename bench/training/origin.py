"""What scoring a transcript needs beside it: the training's spec, its seed and its plantings. No view holds it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

from bench.core.errors import UsageError
from bench.core.files import write_text
from bench.corpus.planting import Planting
from bench.spec.config import canonical_json
from bench.spec.foreign import Foreign, read, writable
from bench.spec.run import RunSpec
from bench.training.case import Plantings
from bench.transcript.transcript import Transcript


class Origin(Foreign):
    """``planting``, ``trained``: their texts (``Planting``); ``trained`` only where it is another."""

    spec: Annotated[RunSpec, AfterValidator(writable)]
    seed: int
    planting: str
    trained: str | None = None


def save_origin(transcript: Transcript, spec: RunSpec, seed: int, plantings: Plantings) -> None:
    """Keep beside the truth what scoring a transcript needs: spec, seed and planting. No view holds it. ``trained``:
    what silos trained on, where the game asks about something else."""
    trained, asked = plantings
    value: dict[str, Any] = {"spec": spec.model_dump(mode="json"), "seed": seed, "planting": asked.to_json()}
    if trained is not asked:
        value["trained"] = trained.to_json()
    path = transcript.root / "truth" / "origin.json"
    if not path.exists():
        write_text(path, canonical_json(value), private=True)


def read_origin(transcript: Transcript) -> tuple[RunSpec, int, Plantings]:
    """Spec, seed and plantings of a transcript from anywhere. Raises UsageError where they are missing or malformed."""
    path = transcript.root / "truth" / "origin.json"
    found = read(Origin, path)
    if found is None:
        raise UsageError(
            f"{transcript.root} has no truth/origin.json (spec, seed, planting), so that nothing can be scored on it."
        )
    try:
        asked = Planting.from_json(found.planting)
        return found.spec, found.seed, (asked if found.trained is None else Planting.from_json(found.trained), asked)
    except UsageError as error:
        raise UsageError(f"{path} is malformed: {error}") from None
