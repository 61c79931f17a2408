"""``bench run`` as a function, for notebooks and programs: ``bench.run(...)``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.cli.grid import Request, check_compositions, expand
from bench.plugins.find import Plugins
from bench.spec.result import Result
from bench.store.store import Store

Words = str | Iterable[str]


def run(
    defense: Words,
    attack: Words,
    *,
    task: Words | None = None,
    adversary: Words | None = None,
    preset: str | None = None,
    seeds: str | int | Iterable[int] | None = None,
    settings: Mapping[str, object] | None = None,
    model: str | None = None,
    dtype: str | None = None,
    secret_seed: int | None = None,
    shadow: int = 0,
    plugins: Sequence[str | Path] = (),
    store: str | Path | None = None,
    refresh: bool = False,
    wait: bool = False,
    isolate: bool | None = None,
    quiet: bool = False,
) -> list[Result]:
    """The results of a grid, from the store where they are fresh, else computed and kept: what ``bench run`` shows.

    ``defense``, ``attack``, ``task``, ``adversary``: a name as on the command line ("dp-sgd+fedshield"), or several.
    ``seeds``: numbers, or text such as "0-4". ``settings``: what ``--set`` sets, by dotted key, as Python values:
    ``{"dp-sgd.epsilon": 4, "federation.rounds": 5}``. ``plugins``: files of further plug-ins. ``store``: where runs are
    kept (default: SILOBENCH_STORE or ./.silobench). All else is as of the option of the same name.

    Progress goes to stderr; ``quiet`` shows none. An attack that fails is a result of status "error". Raises UsageError
    where anything asked for is wrong, before anything is trained, and at the end where other processes still hold a
    run; SiloBenchError where a training fails.
    """
    from bench.assess.harness import Harness, Options
    from bench.assess.run import execute

    found = Plugins([Path(path) for path in plugins])
    request = Request(
        defense=_words(defense),
        attack=_words(attack),
        task=None if task is None else _words(task),
        adversary=None if adversary is None else _words(adversary),
        preset=preset,
        seeds=seeds if seeds is None or isinstance(seeds, str) else _numbers(seeds),
        sets=tuple(f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()),
        model=model,
        dtype=dtype,
        secret_seed=secret_seed,
        shadow=shadow,
    )
    grid = expand(request, found)
    check_compositions(grid.rows, found)
    options = Options(preset=grid.preset, quiet=quiet, refresh=refresh, wait=wait, isolate=isolate)
    return execute(grid.rows, grid.seeds, Harness(Store(None if store is None else Path(store)), found, options))


def _words(value: Words) -> str:
    return value if isinstance(value, str) else ",".join(value)


def _numbers(seeds: int | Iterable[int]) -> str:
    return str(seeds) if isinstance(seeds, int) else ",".join(map(str, seeds))
