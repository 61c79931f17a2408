"""Checks of a defense: that it builds and combines, and that each part it brings keeps its interface's rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.conformance import aggregator, channel, handing, records, step, trainer, transform
from bench.conformance.checks import Check, Failed, expect
from bench.core.errors import UsageError
from bench.defense.compose import Defense, compose
from bench.plugins.find import Plugin
from bench.spec.config import Config


def checks(plugin: Plugin, config: Config) -> Iterator[Check]:
    yield Check("builds", lambda: _builds(plugin, config))
    try:
        defense = plugin.build(config)
    except Exception:
        return  # the check above has said why
    if not isinstance(defense, Defense):
        return
    yield Check("combines", lambda: _combines(plugin.name, defense))
    yield from _of_parts(defense)


def _builds(plugin: Plugin, config: Config) -> str:
    one, other = plugin.build(config), plugin.build(config)
    expect(isinstance(one, Defense), f"build returned {type(one).__name__}, not a Defense.")
    for name in ("trainer", "channel", "aggregator"):
        part = getattr(one, name)
        shared = part is not None and part is getattr(other, name)
        expect(not shared, f"two builds share one {name}; make a new one in build().")
    brought = [name for name in ("trainer", "channel", "aggregator") if getattr(one, name) is not None]
    counted = [f"{len(getattr(one, name))} {name}" for name in ("records", "transforms", "steps") if getattr(one, name)]
    return f"brings {', '.join(brought + counted) or 'nothing but the defaults'}"


def _combines(name: str, defense: Defense) -> str:
    """Composed with a defense of defaults, on either side, its parts are the same and can work together."""
    from bench.defense.compose import fill

    plain = Defense()
    for named in ([("plain", plain), (name, defense)], [(name, defense), ("plain", plain)]):
        try:
            merged = compose(named)
            fill(merged)
        except UsageError as error:
            raise Failed(f"composed with a plain defense it is refused: {error}") from None
        same = replace(merged, origin={}) == replace(defense, origin={})
        expect(same, "composed with a plain defense its parts are no longer the same.")
    return "composed with a plain defense it is itself"


def _of_parts(defense: Defense) -> Iterator[Check]:
    for part in defense.records:
        yield from records.checks(part)
    if defense.trainer is not None:
        yield from trainer.checks(defense.trainer)
    yield from transform.checks(defense)
    if defense.channel is not None:
        kit = handing if defense.topology == "central" else channel
        yield from kit.checks(defense.channel)
    if defense.aggregator is not None:
        yield from aggregator.checks(defense.aggregator)
    for one in defense.steps:
        yield from step.checks(one)
