"""From the words of a command to rows and seeds: names, compositions, comma lists, presets and ``--set``.

    --defense a,b+c   a grid of two defenses, the second composed of b and then c
    --task NAME:ARG   the plug-in NAME with its option ``path`` set to ARG
    --seeds 0,3 | 0-4
    --set KEY=VALUE   KEY is model.*, pool.*, federation.*, utility.* or PLUGIN.*; VALUE is JSON, else a string
                      (federation.partition=auto, the default: by organisations where records name them, else iid)

Order of precedence: defaults of ``bench.spec.run``, preset, ``--model`` and ``--dtype``, ``--set``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bench.cli import presets
from bench.cli.division import divided
from bench.cli.presets import AUTO, SECTIONS, Preset, concrete
from bench.core.errors import UsageError, unknown_name
from bench.plugins.find import Kind, Plugin, Plugins
from bench.spec.config import Config
from bench.spec.explain import keys, unknown_key, validated
from bench.spec.foreign import loads
from bench.spec.run import ADVERSARIES, PluginSpec, Row, RunSpec

#: in a list of attacks: every one that a finished run is enough for
ALL = "all"
#: the most seeds one command takes
MAX_SEEDS = 10_000


@dataclass(frozen=True)
class Request:
    """What a user asked for, as typed. None: the preset decides."""

    defense: str
    attack: str
    task: str | None = None
    adversary: str | None = None
    preset: str | None = None
    seeds: str | None = None
    sets: tuple[str, ...] = ()
    model: str | None = None
    dtype: str | None = None
    secret_seed: int | None = None
    shadow: int = 0


@dataclass(frozen=True)
class Grid:
    """Rows in the order of tasks, defenses, attacks, adversaries, so that those of one training are neighbours."""

    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    preset: str


#: a value from ``--set`` at a dotted key
Overrides = Mapping[str, Any]


def expand(request: Request, plugins: Plugins) -> Grid:
    """The grid that ``request`` names. Raises UsageError on the first thing that is wrong."""
    name, preset = presets.find(request.preset, plugins)
    tasks = split(request.task or preset.task, "--task")
    defenses = [compose(word) for word in split(request.defense, "--defense")]
    attacks = attack_names(request.attack, plugins)
    adversaries = adversary_names(request.adversary, preset.adversaries)
    seeds = parse_seeds(request.seeds or preset.seeds)
    used = _used(plugins, tasks, defenses, attacks)
    overrides = parse_sets(request.sets)
    _check_keys(overrides, used, SECTIONS)
    sections = _sections(preset, request, overrides)

    def spec(kind: Kind, word: str) -> PluginSpec:
        head = _head(word)
        return plugin_spec(plugins, kind, word, {**preset.plugins.get(head, {}), **_under(head, overrides)})

    task_specs = [spec("task", word) for word in tasks]
    stacks = [tuple(spec("defense", part) for part in parts) for parts in defenses]
    attack_specs = [spec("attack", word) for word in attacks]
    asked = {"secret_seed": request.secret_seed, "shadow": request.shadow}
    how = _partition(preset, overrides)
    runs = [
        validated(RunSpec, {**sections, **asked, "federation": federation, "task": task, "defense": stack}, "")
        for task in task_specs
        for federation in [divided(sections, how, task, overrides, plugins)]
        for stack in stacks
    ]
    built = [plugins.find("attack", attack.name).build(attack.config) for attack in attack_specs]
    rows = [
        Row(run=_in_run(run, maker.variant(who)), attack=attack, adversary=who)
        for run in runs
        for attack, maker in zip(attack_specs, built, strict=True)
        for who in adversaries
    ]
    return Grid(tuple(rows), seeds, name)


def _in_run(run: RunSpec, variant: PluginSpec | None) -> RunSpec:
    return run if variant is None else validated(RunSpec, {**dict(run), "variant": variant}, "")


def _partition(preset: Preset, overrides: Overrides) -> Any:
    return overrides.get("federation.partition", preset.federation.get("partition", AUTO))


def attack_specs(plugins: Plugins, names: str, sets: Iterable[str]) -> tuple[PluginSpec, ...]:
    """The attacks of a comma list, for a transcript that exists: ``--set`` reaches their options only."""
    words = attack_names(names, plugins)
    used = _used(plugins, (), (), words)
    overrides = parse_sets(sets)
    _check_keys(overrides, used)
    return tuple(plugin_spec(plugins, "attack", word, _under(_head(word), overrides)) for word in words)


def attack_names(text: str, plugins: Plugins) -> tuple[str, ...]:
    """A comma list of attacks. ``all`` stands for every passive one that needs no further run (no shadow federations,
    no behaviour, no planted canaries). Raises UsageError on an empty name."""
    found: list[str] = []
    for word in split(text, "--attack"):
        found += [word] if word != ALL else [n for n in plugins.names("attack") if _needs_no_further_run(plugins, n)]
    return tuple(dict.fromkeys(found))


def _needs_no_further_run(plugins: Plugins, name: str) -> bool:
    plugin = plugins.find("attack", name)
    attack = plugin.build()
    return not attack.shadows and all(attack.variant(who) is None for who in ADVERSARIES)


def plugin_values(plugin: Plugin, sets: Iterable[str]) -> dict[str, Any]:
    """The options that ``--set`` gives to one plug-in. Raises UsageError on a key that it does not have."""
    overrides = parse_sets(sets)
    _check_keys(overrides, {plugin.name: plugin})
    return _nest(_under(plugin.name, overrides))


def split(text: str, option: str) -> tuple[str, ...]:
    """A comma list without repeats. Raises UsageError on an empty name."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"{option} '{text}' has an empty name: give names separated by single commas.")
    return tuple(dict.fromkeys(parts))


def compose(word: str) -> tuple[str, ...]:
    """The operands of ``a+b``. Raises UsageError on an empty or repeated one."""
    parts = tuple(part.strip() for part in word.split("+"))
    if not all(parts):
        raise UsageError(f"--defense '{word}' has an empty operand: write NAME+NAME.")
    if len(set(parts)) < len(parts):
        raise UsageError(f"--defense '{word}' names a defense twice; its options could not be told apart.")
    return parts


def parse_seeds(text: str) -> tuple[int, ...]:
    """``"0,3"`` or ``"0-4"`` (both ends included). Raises UsageError."""
    seeds: list[int] = []
    for part in split(text, "--seeds"):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
        if match is None:
            raise UsageError(f"--seeds '{text}': '{part}' is no seed; give whole numbers like 0,3 or a range like 0-4.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first >= MAX_SEEDS:
            raise UsageError(f"--seeds '{text}': the range {part} must ascend and hold at most {MAX_SEEDS} seeds.")
        seeds += range(first, last + 1)
    return tuple(dict.fromkeys(seeds))


def parse_sets(items: Iterable[str]) -> dict[str, Any]:
    """``KEY=VALUE`` items; VALUE is JSON where it parses, else a string. Raises UsageError on one without ``=``."""
    found: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"--set '{item}' is not of the form SECTION.KEY=VALUE, for instance pool.candidates=30.")
        if key in found:
            raise UsageError(f"--set gives {key} twice.")
        found[key] = _value(text)
    return found


def adversary_names(text: str | None, default: Sequence[str]) -> tuple[str, ...]:
    """The adversaries of a comma list, in which ``all`` stands for every one there is, or the preset's. Raises
    UsageError with the nearest name."""
    found: list[str] = []
    for name in split(text, "--adversary") if text else default:
        if name not in (ALL, *ADVERSARIES):
            raise unknown_name("adversary", name, (ALL, *ADVERSARIES))
        found += ADVERSARIES if name == ALL else [name]
    return tuple(dict.fromkeys(found))


def plugin_spec(plugins: Plugins, kind: Kind, word: str, values: Mapping[str, Any]) -> PluginSpec:
    """``NAME`` or ``NAME:ARG`` with ``values`` as a PluginSpec, the whole configuration filled in.

    A plug-in module may define ``resolve(config) -> Config``: it completes the configuration with what identifies its
    input (a file's checksum, say), before any identity is computed. Raises UsageError.
    """
    name, colon, argument = word.partition(":")
    plugin = plugins.find(kind, name)
    if colon:
        if "path" not in plugin.config_class.model_fields:
            raise UsageError(f"{kind} '{name}' takes nothing after ':' ('{word}'): it has no option 'path'.")
        values = {**values, "path": argument}
    config = plugin.validate(_nest(values))
    resolve = getattr(plugin.module(), "resolve", None)
    if resolve is not None:
        config = resolve(config)
    return PluginSpec(name=name, config=config.model_dump(mode="json"))


def _head(word: str) -> str:
    return word.partition(":")[0]


def _value(text: str) -> Any:
    try:
        return loads(text)
    except ValueError:
        return text


def _used(
    plugins: Plugins, tasks: Iterable[str], defenses: Iterable[Sequence[str]], attacks: Iterable[str]
) -> dict[str, Plugin]:
    """Every plug-in of the grid by name. Raises UsageError where one name means two plug-ins."""
    asked: list[tuple[Kind, str]] = [("task", _head(word)) for word in tasks]
    asked += [("defense", _head(part)) for parts in defenses for part in parts]
    asked += [("attack", _head(word)) for word in attacks]
    found: dict[str, Plugin] = {}
    for kind, name in dict.fromkeys(asked):
        plugin = plugins.find(kind, name)
        if name in found:
            raise UsageError(
                f"'{name}' names two plug-ins of this grid ({found[name].kind} and {kind}), "
                f"so --set {name}.KEY could mean either: rename one of them."
            )
        found[name] = plugin
    return found


def _check_keys(
    overrides: Overrides, used: Mapping[str, Plugin], sections: Mapping[str, type[Config]] = MappingProxyType({})
) -> None:
    """Raises UsageError on a key that neither ``sections`` nor the plug-ins have."""
    if not overrides:
        return
    models = {**sections, **{name: plugin.config_class for name, plugin in used.items()}}
    known = [key for name, model in models.items() for key in keys(model, name)]
    for key in overrides:
        if key not in known:
            raise UsageError(unknown_key(key, known))


def _sections(preset: Preset, request: Request, overrides: Overrides) -> dict[str, Any]:
    """The validated ``model``, ``pool`` and ``federation`` of every cell."""
    values = {section: json.loads(json.dumps(getattr(preset, section))) for section in SECTIONS}
    for key, given in (("name", request.model), ("dtype", request.dtype)):
        if given is not None:
            values["model"][key] = given
    for section in SECTIONS:
        _merge(values[section], _nest(_under(section, overrides)))
    return {
        section: validated(model, concrete(section, values[section]), section) for section, model in SECTIONS.items()
    }


def _under(head: str, overrides: Overrides) -> dict[str, Any]:
    """The overrides below ``head.``, keys without it."""
    return {key[len(head) + 1 :]: value for key, value in overrides.items() if key.startswith(f"{head}.")}


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``{"a.b": 1}`` as ``{"a": {"b": 1}}``."""
    result: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        target = result
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    return result


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def check_compositions(rows: Iterable[Row], plugins: Plugins) -> None:
    """Build and merge every composed defense, so that one that can't be is found before anything runs.

    Raises UsageError where two operands bring the same single part.
    """
    from bench.defense.compose import compose as merge

    stacks = {row.run.defense_name: row.run.defense for row in rows if len(row.run.defense) > 1}
    for stack in stacks.values():
        merge([(part.name, plugins.find("defense", part.name).build(part.config)) for part in stack])
