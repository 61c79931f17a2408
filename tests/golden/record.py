"""Records the answers whose keys are missing: ``python -m tests.golden.record``. None is ever written again.

A key is missing where a plug-in is new, or where its version, or one of the harness's, went up.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.plugins.find import Plugins
from tests.golden import cells, files, settings


def record(folder: Path) -> list[str]:
    """Compute and add what is missing in ``folder``; the names of the new files."""
    plugins, added = Plugins(), []
    for defense in settings.built_in(plugins, "defense"):
        wanted = set(settings.keys(plugins, defense, settings.attacks_on(plugins, defense)).values())
        missing = wanted - set(files.known(folder))
        if missing:
            found = cells.answers(plugins, defense)
            broken = [key for key in missing for c in found[key].get("cells", {}).values() if c["status"] == "error"]
            if broken:
                raise SystemExit(f"{broken[0]} is an error, and no error is recorded: {found[broken[0]]['cells']}")
            added += files.add(folder, {key: found[key] for key in found if key in missing})
    return added


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):  # one core, as every worker of the tests has
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for name in record(Path(sys.argv[1]) if len(sys.argv) > 1 else files.FOLDER):
        print(name)
