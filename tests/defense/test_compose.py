"""Composition: what two defenses make together, which defaults are filled in, and which parts can't work together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bench.core.errors import UsageError
from bench.defense.aggregator import ServerStep
from bench.defense.compose import Defense, Parts, compose, fill
from bench.defense.defaults.mean import Mean
from bench.defense.defaults.plain import PlainChannel
from bench.defense.flow import Flow
from bench.defense.parts import Transform
from tests.defense.toys import (
    Clip,
    Idle,
    Integers,
    Keep,
    Noise,
    OnGrid,
    Picky,
    Quantising,
    Same,
    Sparse,
    Step,
    ToGrid,
    promise,
)

# -- compose -------------------------------------------------------------------------------------------------------


def test_defenses_merge_from_left_to_right() -> None:
    first, second, third, trainer = Same(), Same(), Same(), Idle()
    steps = (Step(), Step(), Step())
    one = Defense(records=(Keep(),), transforms=(first,), trainer=trainer, steps=steps[:1], simulated=("enclave",))
    other = Defense(
        records=(Keep(),), transforms=(second, third), channel=PlainChannel(), steps=steps[1:], simulated=("mail",)
    )
    both = compose([("one", one), ("other", other)])
    assert both.records == one.records + other.records
    assert both.transforms == (first, second, third)
    assert (both.trainer, both.channel, both.aggregator) == (trainer, other.channel, None)
    assert both.steps == steps
    assert both.simulated == ("enclave", "mail")
    assert both.origin == {"trainer": "one", "channel": "other"}
    assert compose([("other", other), ("one", one)]).transforms == (second, third, first)


def test_nothing_composed_is_all_defaults() -> None:
    assert compose([]) == Defense()
    assert compose([("fedavg", Defense()), ("again", Defense())]) == Defense()


@pytest.mark.parametrize(
    ("part", "make"), [("trainer", Idle), ("channel", PlainChannel), ("aggregator", Mean)], ids=lambda p: str(p)
)
def test_a_federation_has_one_of_each_single_part(part: str, make: Callable[[], Any]) -> None:
    bring = Defense(**{part: make()})
    with pytest.raises(UsageError) as caught:
        compose([("one", bring), ("between", Defense()), ("other", bring)])
    assert str(caught.value) == (
        f"'one' and 'other' can't be combined: each brings its own {part}, and a federation has one."
    )


# -- fill ----------------------------------------------------------------------------------------------------------


def test_what_a_defense_leaves_open_is_the_plain_default() -> None:
    parts = fill(Defense())
    kinds = [type(part).__name__ for part in (parts.trainer, parts.channel, parts.aggregator)]
    assert kinds == ["GradientTrainer", "PlainChannel", "Mean"]
    assert (parts.records, parts.transforms, parts.encoders, parts.simulated) == ((), (), (), ())
    assert (parts.channel.opener, parts.aggregator.weight(30), parts.promises) == ("server", 30, ())


def test_what_a_defense_brings_is_kept() -> None:
    defense = Defense(
        (Keep(),), Idle(), (Same(),), PlainChannel("silos"), Mean(weighted=False), (Step(),), ("enclave",)
    )
    parts = fill(defense)
    assert parts == Parts(
        defense.records,
        defense.trainer,  # type: ignore[arg-type]
        defense.transforms,
        defense.channel,  # type: ignore[arg-type]
        defense.aggregator,  # type: ignore[arg-type]
        (),
        defense.steps,
        ("enclave",),
    )


def test_the_default_channel_has_sums_opened_by_whom_the_aggregator_says() -> None:
    assert fill(Defense(aggregator=Picky(opener="silos"))).channel.opener == "silos"


def test_transforms_from_the_first_that_gives_integers_on_act_on_the_summand() -> None:
    before, grid, after = Same(), ToGrid(), OnGrid()
    parts = fill(Defense(transforms=(before, grid, after)))
    assert (parts.transforms, parts.encoders) == ((before,), (grid, after))
    assert fill(Defense(transforms=(before,))).encoders == ()


def test_an_integer_channel_s_own_quantiser_comes_last_where_real_values_would_reach_it() -> None:
    before, grid = Same(), ToGrid()
    channel = Quantising()
    parts = fill(Defense(transforms=(before,), channel=channel))
    assert (parts.transforms, parts.encoders) == ((before,), (channel.quantiser,))
    assert fill(Defense(channel=channel)).encoders == (channel.quantiser,)
    for transforms in ((grid,), (before, grid)):
        assert fill(Defense(transforms=transforms, channel=channel)).encoders == (grid,)  # not a second one


def refused(says: str, *transforms: Transform, **parts: Any) -> None:
    with pytest.raises(UsageError) as caught:
        fill(Defense(transforms=transforms, **parts))
    assert str(caught.value) == says


def test_a_part_that_is_handed_values_of_another_kind_is_refused() -> None:
    rest = "by the parts before it: put a quantiser (or drop one) before it."
    refused(f"Same takes real values but is handed grid ones {rest}", ToGrid(), Same())
    refused(f"OnGrid takes grid values but is handed real ones {rest}", Same(), OnGrid())
    refused(f"Integers takes grid values but is handed real ones {rest}", channel=Integers())
    real = PlainChannel()
    real.accepts = frozenset({"real"})
    refused(f"PlainChannel takes real values but is handed grid ones {rest}", ToGrid(), channel=real)
    back = Same(lambda flow, part: replace(flow, values="real"))
    refused("Same gives real values after integers were made: put it before them.", ToGrid(), back)
    fill(Defense(transforms=(back, ToGrid())))


def test_noise_needs_a_bound_that_still_holds() -> None:
    adds = "works on values of a bounded norm, and"
    refused(f"Noise {adds} nothing before it clips.", Noise())
    refused(f"Noise {adds} nothing before it clips.", Noise(), Clip())
    refused(f"Noise {adds} Same, which comes between, may raise the norm.", Clip(), Same(), Noise())
    refused(f"Step {adds} nothing before it clips.", steps=(Step(answer=bounds),))
    refused(f"Step {adds} Same, which comes between, may raise the norm.", Clip(), Same(), steps=(Step(answer=bounds),))
    for sound in ((Clip(), Noise()), (Same(), Clip(), Same(kept), Noise(), Noise()), (Clip(), Noise(), Same())):
        fill(Defense(transforms=sound))
    fill(Defense(transforms=(Same(), Clip(), Noise()), steps=(Step(answer=bounds),)))


def bounds(flow: Flow, part: object) -> Flow:
    return flow.within_bound(part)


def kept(flow: Flow, part: object) -> Flow:
    return flow.taken(part, "real")


def test_a_share_of_noise_comes_last() -> None:
    share = Same(lambda flow, part: flow.closing("Noise adds a share of noise that protects in the sum only"))
    fill(Defense(transforms=(Clip(), Same(kept), share)))
    refused(
        "Noise adds a share of noise that protects in the sum only: Same can't come after it.", Clip(), share, Same()
    )


def test_steps_are_told_who_opens_the_sums() -> None:
    seen: list[str] = []
    note = Step(answer=lambda flow, part: seen.append(flow.opener) or flow)  # type: ignore[func-returns-value]
    for opener in ("server", "silos"):
        fill(Defense(channel=PlainChannel(opener), steps=(note,)))
    assert seen == ["server", "silos"]


def test_summands_that_are_no_updates_have_no_bound_and_are_owed_nothing_of_old_factors() -> None:
    factors = Picky(lambda flow, part: flow.unbound(part, "Picky makes summands of which nothing is known"))
    on_grid = Same(lambda flow, part: flow.within_bound(part))
    refused(
        "Same works on values of a bounded norm, and Picky makes summands of which nothing is known.",
        Clip(),
        ToGrid(),
        on_grid,
        aggregator=factors,
    )
    fill(Defense(transforms=(Clip(), Noise(), ToGrid()), aggregator=factors))  # on the update
    owes = Same(lambda flow, part: flow.saying("owing", part))
    fresh = Picky(lambda flow, part: flow.barring("owing", "with Picky every round trains new factors"))
    refused(
        "Same sends later what it leaves out now, and with Picky every round trains new factors.",
        owes,
        aggregator=fresh,
    )
    fill(Defense(transforms=(owes,), aggregator=Picky()))


def test_unsent_coordinates_need_an_aggregator_of_changes() -> None:
    says = "{} leaves coordinates unsent, meaning unchanged, and the aggregator {}: they can't be combined."
    whole = "Mean sums whole weights, where unsent would mean 0"
    refused(says.format("Sparse", whole), Sparse(), aggregator=Mean(of="weights"))

    class Late(OnGrid):
        support = Sparse.support

    refused(says.format("Late", whole), Same(), ToGrid(), Late(), aggregator=Mean(of="weights"))
    fill(Defense(transforms=(Sparse(),)))
    fill(Defense(transforms=(Same(),), aggregator=Mean(of="weights")))


def test_a_step_of_its_own_is_refused_where_the_aggregator_can_not_have_one() -> None:
    tied = Picky(lambda flow, part: flow.barring("moving", "Picky ties its values together"))
    refused(
        "Step moves each value of the global adapter by a rule of its own, and Picky ties its values together.",
        aggregator=tied,
        steps=(Step(),),
    )
    fill(Defense(aggregator=tied, steps=(ServerStep(),)))


def test_where_the_server_trains_nothing_works_on_updates_or_promises_something_towards_it() -> None:
    says = "{} works on updates, and where the server trains on all records there are none."
    refused(says.format("Same"), Same(), topology="central")
    refused(says.format("Mean"), topology="central", aggregator=Mean())
    refused(says.format("Step"), topology="central", steps=(Step(),))
    private = Idle()
    private.promise = promise("record")
    with pytest.raises(UsageError) as caught:
        fill(Defense(trainer=private, topology="central"))
    assert str(caught.value) == (
        "Idle promises something towards the server, which is handed the records themselves here: they can't be "
        "combined."
    )
    fill(Defense(records=(Keep(),), trainer=Idle(), topology="central"))
