"""``python -m tests.fuzz [CASES [TARGET ...]]``: cases and bad answers of every parser. Costly ones get a hundredth."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.targets import targets
from tests.fuzz.world import made


def main(words: list[str]) -> int:
    cases, wanted = int(words[0]) if words else 1000, words[1:]
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="silobench-fuzz-") as folder:
        for name, target in targets(made(Path(folder))).items():
            if wanted and name not in wanted:
                continue
            count, began = max(cases // 100, 1) if target.costly and not wanted else cases, time.monotonic()
            found = [(k, bad) for k in range(count) if (bad := target.bad(k))]
            wrong += len(found)
            print(f"{name}: {count} cases, {len(found)} bad, {time.monotonic() - began:.1f} s", flush=True)
            for number, bad in {bad.partition(" of ")[0]: (k, bad) for k, bad in reversed(found)}.values():
                print(f"  case {number}: {bad}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
