"""Presets: data files ``presets/*.toml`` beside the tasks that say how large a run is, and on what.

    description = "one sentence"
    default = true                     # used where no --preset is given; one file only
    task = "NAME"
    seeds = "0-4"                      # as --seeds
    adversaries = ["outsider", ...]    # default: all standard ones
    [model] [pool] [federation] [federation.local] [federation.lora] [utility]   # fields of bench.spec.run
    [plugins.NAME]                     # options of a plug-in, where the grid has it

What a preset leaves out has the default of ``bench.spec.run``; what ``--set`` gives goes over both.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from bench.core.errors import UsageError, unknown_name
from bench.plugins.find import Plugins
from bench.spec.config import Config
from bench.spec.explain import validated
from bench.spec.run import ADVERSARIES, FederationSpec, ModelSpec, PoolSpec, UtilitySpec

#: the parts of a RunSpec that presets and ``--set`` address by name
SECTIONS: dict[str, type[Config]] = {
    "model": ModelSpec,
    "pool": PoolSpec,
    "federation": FederationSpec,
    "utility": UtilitySpec,
}
#: ``federation.partition`` that is not asked for: ``bench.cli.division`` says what it comes to
AUTO = "auto"


class Preset(Config):
    """A preset file. The sections hold only the fields that the file gives."""

    description: str
    default: bool = False
    task: str
    seeds: str = "0"
    adversaries: tuple[str, ...] = ADVERSARIES
    model: dict[str, Any] = Field(default_factory=dict)
    pool: dict[str, Any] = Field(default_factory=dict)
    federation: dict[str, Any] = Field(default_factory=dict)
    utility: dict[str, Any] = Field(default_factory=dict)
    plugins: dict[str, dict[str, Any]] = Field(default_factory=dict)


def load(path: Path) -> Preset:
    """Read and check a preset file. Raises UsageError naming the file, and the key where one is wrong."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        preset = validated(Preset, values, "")
        for section, model in SECTIONS.items():
            validated(model, concrete(section, getattr(preset, section)), section)
    except OSError as error:
        raise UsageError(f"Preset {path} can't be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:  # TOML's own, of UTF-8, of a number of thousands of digits
        raise UsageError(f"Preset {path} is not valid TOML: {error}.") from None
    except UsageError as error:
        raise UsageError(f"Preset {path}: {error}") from None
    return preset


def concrete(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a section without what a spec never holds."""
    return {k: v for k, v in values.items() if (section, k, v) != ("federation", "partition", AUTO)}


def find(name: str | None, plugins: Plugins) -> tuple[str, Preset]:
    """A preset by name, by path (ending in ``.toml``), or the default one, as (name, preset). Raises UsageError."""
    if name is not None and name.endswith(".toml"):
        return Path(name).stem, load(Path(name))
    files = plugins.presets()
    if name is None:
        return _default(files)
    if name not in files:
        raise unknown_name("preset", name, files)
    return name, load(files[name])


def _default(files: dict[str, Path]) -> tuple[str, Preset]:
    marked = [(name, preset) for name, preset in ((n, load(p)) for n, p in files.items()) if preset.default]
    if len(marked) != 1:
        names = ", ".join(name for name, _ in marked) or "none"
        raise UsageError(f"One preset must be marked 'default = true' ({names} is): name one with --preset.")
    return marked[0]
