"""One answer beside its golden, for the tests."""

from __future__ import annotations

from bench.plugins.find import Plugins
from tests.golden.agreement import disagreements, tolerance
from tests.golden.cells import Answer
from tests.golden.files import FOLDER, path, read

PLUGINS = Plugins()


def recorded(key: str) -> Answer:
    """What is recorded under ``key``; fails where nothing is."""
    assert path(FOLDER, key).is_file(), (
        f"Nothing is recorded under {key}: run 'python -m tests.golden.record' and commit what it adds. A key is new "
        "where a plug-in is, or where its version or one of the harness's went up; if none did, a name changed."
    )
    return read(FOLDER, key)


def assert_recorded(defense: str, key: str, fresh: Answer) -> None:
    """That ``fresh`` is what was recorded, to the last digit where the machine is alike."""
    golden = recorded(key)
    wrong = disagreements(golden, fresh, tolerance(defense, golden, fresh))
    where = "such a machine as this" if golden["made"] == fresh["made"] else f"{golden['made']}"
    assert not wrong, f"{key}, recorded on {where}, has {len(wrong)} other answers, the first:\n" + "\n".join(wrong[:8])
