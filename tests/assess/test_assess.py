"""One attack as one adversary: which views are built and kept, who is seated, and what each outcome is called."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.assess import assess as module
from bench.assess.assess import Assessor
from bench.assess.plays.table import Assessment, Seat
from bench.attack.attack import Attack
from bench.attack.behaviour import Behaviour
from bench.core.errors import SiloBenchError, UsageError
from bench.defense.compose import Defense
from bench.defense.parts import Mechanism
from bench.defense.public import Public
from bench.spec.result import Claim
from bench.spec.run import FederationSpec, PluginSpec, RunSpec
from bench.training.training import ShadowRun
from bench.transcript.transcript import Transcript
from bench.view.openers.base import Traits
from bench.view.view import adapter_handle
from tests.federation.fakes import DrawnTrainer, make_setup, run

NAMES = ("silo-0", "silo-1", "silo-2")


class Looks(Attack):
    """Wants uploads."""

    game = "source"

    def __init__(self, *needs: str, shadows: int = 0, behaviour: Behaviour | None = None) -> None:
        self.needs = frozenset(needs or {"upload"})
        self.shadows, self.behaviour = shadows, behaviour

    def variant(self, adversary: str) -> PluginSpec | None:
        return None if self.behaviour is None else PluginSpec(name="active")


@dataclass
class World:
    """A finished run of drawn updates, and what was played on it."""

    folder: Path
    run: Any
    transcript: Transcript
    seats: list[Sequence[Seat]] = field(default_factory=list)
    built: list[str] = field(default_factory=list)
    outcome: Callable[[], Assessment] = lambda: Assessment("ok", note="played", cost={"more": 1})

    def assessor(self, shadows: Sequence[ShadowRun] = (), **changes: Any) -> Assessor:
        return Assessor(SimpleNamespace(**{**vars(self.run), **changes}), SimpleNamespace(), shadows)  # type: ignore[arg-type]

    def play(self, table: Any, name: str, attack: Attack, adversary: str, seats: Sequence[Seat]) -> Assessment:
        self.seats.append(seats)
        return self.outcome()


def finished(folder: Path, silos: int = 3, seed: int = 0, **federation: Any) -> tuple[Any, Transcript]:
    setup = make_setup(FederationSpec(silos=silos, rounds=2, **federation), Defense(trainer=DrawnTrainer()), seed)
    transcript = run(folder / "transcript", setup)
    spec = RunSpec(task=PluginSpec(name="t"), defense=(PluginSpec(name="d"),), federation=setup.federation)
    sizes: Mapping[str, int] = dict.fromkeys(transcript.public.silos, 10)
    noted = {"mechanisms": dict.fromkeys(sizes, ()), "nominal_sizes": sizes, "parts": setup.parts}
    case = SimpleNamespace(materials=SimpleNamespace())
    return SimpleNamespace(case=case, spec=spec, transcript=transcript, directory=folder, **noted), transcript


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    def world(**options: Any) -> World:
        made = World(tmp_path, *finished(tmp_path, **options))
        real = module.build

        def build(*arguments: Any, **more: Any) -> Any:
            made.built.append(arguments[4].name)
            return real(*arguments, **more)

        monkeypatch.setattr(module, "build", build)
        monkeypatch.setattr(module, "traits", lambda *_: Traits())
        monkeypatch.setattr(module, "player", lambda game: made.play)
        return made

    return world


def test_what_was_played_is_the_answer_with_its_cost(make: Callable[..., World]) -> None:
    world = make()
    found = world.assessor().assess("looks", Looks(), "server")
    assert (found.status, found.note) == ("ok", "played")
    assert found.cost.keys() == {"more", "attack_s", "attack_peak_bytes"}
    (seats,) = world.seats
    assert [(s.number, s.assignment.coalition, s.victims, s.shadows) for s in seats] == [(0, {"server"}, NAMES, ())]
    assert len(seats[0].view.uploads()) == 6


def test_a_run_that_is_none_for_the_attack_is_not_played(make: Callable[..., World]) -> None:
    world, attack = make(), Looks()
    attack.only = frozenset({"server"})
    found = world.assessor().assess("looks", attack, "silo")
    assert (found.status, found.note, found.cost) == ("not-applicable", "it is made as server", {})
    assert (world.seats, world.built) == ([], [])


def test_a_silo_alone_has_nobody_to_attack(make: Callable[..., World]) -> None:
    alone = make(silos=1).assessor()
    assert alone.claim("silo") is None
    found = alone.assess("looks", Looks(), "silo")
    assert (found.status, found.note) == ("not-applicable", "with one silo there is nobody else to attack")


def test_what_opened_instead_is_named_where_nothing_needed_did(make: Callable[..., World]) -> None:
    world = make()
    found = world.assessor().assess("looks", Looks("upload", "sum"), "outsider")
    assert found.status == "nothing-opened"
    assert found.note == "no sum or upload opened (what opened: adapter, query)"
    assert world.seats == []


def test_what_was_dropped_from_the_disk_is_told_from_what_did_not_open(make: Callable[..., World]) -> None:
    world = make()
    for round in (0, 1):
        world.transcript.drop_frames(round)
    found = world.assessor().assess("looks", Looks(), "server")
    assert found.status == "thinned"
    first = ["broadcast of server", "upload of silo-0", "upload of silo-1", "upload of silo-2"]
    said = [*(f"round 0 {word}" for word in first), "round 1 broadcast of server"]  # the first five of nine
    assert found.note == f"dropped to hold the disk budget: {', '.join(said)} and 4 more"


def test_coalitions_that_opened_nothing_are_counted_and_the_others_seated(make: Callable[..., World]) -> None:
    # of two silos each reads the other's upload from the sum; who was away cannot
    away = ({"round": r, "silo": 2, "stage": "train"} for r in range(2))
    world = make(dropouts=tuple(away))
    found = world.assessor().assess("looks", Looks(), "silo")
    assert found.note == "played; 1 of 3 coalitions opened nothing"
    assert [s.number for s in world.seats[0]] == [0, 1]


def raising(error: Exception) -> Callable[..., Any]:
    def raises(*_: Any, **__: Any) -> Any:
        raise error

    return raises


def test_an_attack_that_breaks_is_an_error_of_its_row(make: Callable[..., World]) -> None:
    world = make()
    world.outcome = raising(SiloBenchError("score 'x' has shape ()"))
    found = world.assessor().assess("looks", Looks(), "server")
    assert (found.status, found.note, found.cost) == ("error", "score 'x' has shape ()", {})
    world.outcome = raising(KeyError("a"))
    found = world.assessor().assess("looks", Looks(), "server")
    assert found.status == "error"
    assert re.fullmatch(r"KeyError at raises line \d+: 'a'", found.note)


def test_a_request_that_can_not_be_carried_out_ends_the_command(make: Callable[..., World]) -> None:
    world = make()
    world.outcome = raising(UsageError("no such file"))
    with pytest.raises(UsageError, match="no such file"):
        world.assessor().assess("looks", Looks(), "server")


def test_views_are_built_once_per_adversary_and_dropped_for_the_next(make: Callable[..., World]) -> None:
    world = make()
    assessor = world.assessor()
    assert [assessor.assess(name, Looks("adapter"), "silo").status for name in ("one", "two")] == ["ok", "ok"]
    assert world.built == ["silo-0", "silo-1", "silo-2"]
    assert sorted(p.name for p in (world.folder / "views").iterdir()) == world.built
    assessor.assess("one", Looks(), "server")
    assert [p.name for p in (world.folder / "views").iterdir()] == ["server-0"]
    assessor.drop_views()
    assert not (world.folder / "views").exists()


def test_an_attack_with_openers_of_its_own_gets_views_of_its_own(make: Callable[..., World]) -> None:
    world, opening = make(), Looks()
    opening.openers = (lambda knowledge, hints: (),)
    assessor = world.assessor()
    assessor.assess("plain", Looks(), "server")
    assessor.assess("opening", opening, "server")
    assessor.assess("opening", opening, "server")
    assert world.built == ["server-0", "server-opening-0"]


def test_a_coalition_that_deviates_is_the_first_and_after_its_victims_only(make: Callable[..., World]) -> None:
    class AfterTheLast(Behaviour):
        def victims(self, victims: tuple[str, ...], public: Public) -> tuple[str, ...]:
            assert public.silos == NAMES
            return victims[-1:]

    world = make()
    spec = world.run.spec.model_copy(update={"variant": PluginSpec(name="active")})
    assessor = world.assessor(spec=spec)
    assessor.assess("looks", Looks(behaviour=AfterTheLast()), "server")
    assessor.assess("looks", Looks("adapter", behaviour=AfterTheLast()), "silo")
    assert world.built == ["server-0", "silo-0"]
    (first,), (second,) = world.seats
    assert (first.victims, first.view.victims) == (("silo-2",), ("silo-2",))
    assert (second.assignment.coalition, second.victims) == ({"silo-0"}, ("silo-1",))


def test_shadows_are_seen_as_the_same_coalition_sees_them(make: Callable[..., World], tmp_path: Path) -> None:
    world = make()
    plantings: list[Any] = [SimpleNamespace(number=k) for k in range(3)]
    shadows = [ShadowRun(f"{k}" * 8, finished(tmp_path / f"shadow-{k}", seed=k + 1)[1], plantings[k]) for k in range(3)]
    assessor = world.assessor(shadows)
    assert len(assessor.released) == 1
    found = assessor.assess("looks", Looks("adapter", shadows=2), "silo")
    assert found.cost["shadows"] == 2
    (seats,) = world.seats
    for seat in seats:
        assert [planting for _, planting in seat.shadows] == plantings[:2]
        assert all(view.coalition == seat.assignment.coalition for view, _ in seat.shadows)
        assert len({one.adapters()[-1].handle for one in (seat.view, *(v for v, _ in seat.shadows))}) == 3
    assert len(world.built) == 3 + 3 * 2
    assessor.assess("again", Looks("adapter", shadows=1), "silo")
    assert len(world.built) == 3 + 3 * 2
    # released are those of the run and of the shadows that were asked for
    final = [one.final_adapter() for one in (world.transcript, *(s.transcript for s in shadows[:2]))]
    assert assessor.released.keys() == {adapter_handle(adapter) for adapter in final}


def test_an_attack_without_its_shadows_is_told_so_by_name_of_the_cause(make: Callable[..., World]) -> None:
    found = make().assessor().assess("looks", Looks(shadows=4), "server")
    assert found.status == "error"
    assert found.note == "the attack wants 4 shadow federations, and here are 0"


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """``epsilon``: what is promised to each first victim. ``asked``: the questions."""
    state: dict[str, Any] = {"epsilon": {}, "asked": []}

    def claim(*arguments: Any, **more: Any) -> Claim:
        state["asked"].append((arguments, more))
        return Claim(epsilon=state["epsilon"].get(arguments[3][0]), note=arguments[3][0])

    monkeypatch.setattr(module.privacy, "claim", claim)
    return state


@pytest.mark.parametrize(
    ("epsilons", "worst"),
    [
        ((2.0, 8.0, 4.0), "silo-1"),
        ((0.0, 0.0, 0.5), "silo-2"),
        ((9.0, None, 4.0), "silo-1"),
        ((9.0, 8.0, 4.0), "silo-0"),
    ],
)
def test_the_claim_is_the_worst_of_the_adversary_s_coalitions(
    make: Callable[..., World], claims: dict[str, Any], epsilons: tuple[float | None, ...], worst: str
) -> None:
    world = make()
    claims["epsilon"] = dict(zip(NAMES, epsilons, strict=True))
    found = world.assessor().claim("silo")
    assert found is not None
    assert found.note == worst
    assert world.built == []  # noise of a silo's own counts whatever is read


def test_a_claim_is_asked_for_with_all_that_the_run_noted(make: Callable[..., World], claims: dict[str, Any]) -> None:
    world = make(client_fraction=0.3)
    called = {name for names in world.transcript.public.participants for name in names}
    spec = world.run.spec.model_copy(update={"secret_seed": 3})
    world.assessor(spec=spec).claim("server", 1e-7)
    ((arguments, more),) = claims["asked"]
    assert arguments == (world.run.mechanisms, (), {"server"}, NAMES, world.run.nominal_sizes, 1e-7)
    assert (more["simulated"], more["absent"]) == (True, set(NAMES) - called)
    assert [sorted(one.bounds) for one in more["exposure"].sums] == [
        list(p) for p in world.transcript.public.participants
    ]
    assert more["exposure"].rows is None


def test_noise_in_sums_is_weighed_by_what_the_coalition_reads(
    make: Callable[..., World], claims: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make()
    shares = {name: (Mechanism("skellam-share", {}),) for name in NAMES}
    world.transcript.drop_frames(1)
    world.assessor(mechanisms=shares).claim("server")
    exposure = claims["asked"][0][1]["exposure"]
    assert world.built == ["server-0"]
    assert dict.fromkeys(NAMES, 1).items() <= {k: v for row in exposure.rows[0] for k, v in row.items()}.items()
    assert exposure.blind == {1}
    # a view that can't be built leaves nothing assumed unread
    monkeypatch.setattr(module, "build", raising(SiloBenchError("no view")))
    world.assessor(mechanisms=shares).claim("server")
    assert claims["asked"][1][1]["exposure"].rows is None
