"""The record of one (run, attack, adversary): a schema-versioned JSON object.

Fields that this version does not know survive a round trip (``extra="allow"``); a newer schema is refused.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.core.errors import UsageError
from bench.spec.config import canonical_json
from bench.spec.explain import fault
from bench.spec.foreign import Json, parsed

#: 1 called the id of a row ``cell``, and knew no versions
RESULT_SCHEMA = 2
Status = Literal["ok", "nothing-opened", "not-applicable", "thinned", "refused", "void", "error"]


class NewerSchema(UsageError):
    """A result written by a later silobench."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class Leakage(_Part):
    """One leakage figure. ``low``/``high``: 95% interval, None where refused; ``n``: counts behind it, by name
    (e.g. members, nonmembers, clusters); ``over``: what the interval is over ("records of this model", "runs").
    ``value`` None with a ``note`` says why the number is refused."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: dict[str, int] = {}
    over: str = "records of this model"
    note: str = ""


#: the utility figure that decides whether a model has learned
GAIN = "text-gain"


class Utility(_Part):
    """One utility figure on held-out records, of the final global adapter, beside the base model's."""

    name: str
    value: float
    base: float
    low: float | None = None
    high: float | None = None
    n: int = 0
    better: Literal["lower", "higher"] = "lower"
    curve: tuple[float, ...] = ()


class Claim(_Part):
    """Epsilon towards this adversary, computed by the harness. ``epsilon`` None means infinite (nothing promised)."""

    epsilon: float | None = None
    delta: float | None = None
    unit: str = ""
    adjacency: str = ""
    epsilon_rdp: float | None = None
    note: str = ""


class Organisation(_Part):
    """Which organisation a silo is, where the records name them, and the public number of records that it trains on."""

    silo: str
    name: str
    records: int


class Data(_Part):
    """Records that the task gave; how many were left out because they don't fit into ``pool.max_tokens``, by reason;
    how many are in use, and of how many of these the text was cut; candidates that are left undecided, since the
    defense's records part makes them the same as what was trained on; secrets marked in them, and those that were cut
    off, which nobody is asked about."""

    given: int
    left_out: dict[str, int] = {}
    used: int
    cut: int = 0
    undecided: int = 0
    secrets: int = 0
    secrets_cut: int = 0


class Result(_Part):
    """What one cell (a row and a seed) came to. See docs/metrics.md for every field's definition.

    ``row``, ``run``: ids of its row and of its training; ``result``: of the cell. ``versions``: of the plug-ins that
    took part ("attack/mia") and of the harness ("SCORING"); empty for a result from before there were any.
    ``fingerprint``: of the sources, for the store that made it. ``knows``: what the attack went by beside its view
    (``Attack.knows``).
    """

    schema_version: int = RESULT_SCHEMA
    row: str
    run: str
    result: str
    fingerprint: str
    versions: dict[str, int] = {}
    seed: int
    status: Status
    task: str
    defense: str
    attack: str
    adversary: str
    reads: tuple[str, ...] = ()
    leakage: tuple[Leakage, ...] = ()
    utility: tuple[Utility, ...] = ()
    cost: dict[str, Any] = {}
    claim: Claim | None = None
    learned: bool | None = None
    simulated: tuple[str, ...] = ()
    knows: Literal["candidates", "population"] = "candidates"
    adaptive: bool = False
    active: bool = False
    audit: dict[str, Any] | None = None
    scores_sha256: str | None = None
    organisations: tuple[Organisation, ...] = ()
    data: Data | None = None
    supersedes: str | None = None
    note: str = ""
    spec: dict[str, Any] = {}
    provenance: dict[str, Any] = {}

    def to_json(self) -> str:
        """One canonical line. The schema number stands under the key ``schema``."""
        value = self.model_dump(mode="json")
        value["schema"] = value.pop("schema_version")
        # fields that came later are left out where they say nothing, so that lines from before them stay what they were
        for name in ("versions", "knows", "organisations", "data"):
            if getattr(self, name) == type(self).model_fields[name].default:
                del value[name]
        return canonical_json(value)

    @classmethod
    def from_json(cls, text: str, where: str = "result") -> Result:
        """Parse one line. Raises UsageError naming ``where`` on malformed text, NewerSchema on a newer schema."""
        value = parsed(dict[str, Json], text, where)
        schema = value.pop("schema", None)
        if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
            raise UsageError(f"{where} is no SiloBench result: it has no positive integer field 'schema'.")
        if schema > RESULT_SCHEMA:
            raise NewerSchema(
                f"{where} has result schema {schema}, "
                f"and this silobench reads up to {RESULT_SCHEMA}: upgrade silobench."
            )
        value["schema_version"] = RESULT_SCHEMA
        if schema == 1 and "cell" in value:
            value["row"] = value.pop("cell")
        try:
            result = cls.model_validate(value)
            # what can't be written again (too deep, out of range, half a surrogate pair) is refused now, not later
            result.to_json().encode()
        except ValidationError as error:
            raise UsageError(f"{where} {fault(error, cls)}") from None
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where} is no valid result: {error}.") from None
        return result
