"""What the auditing functions of jax-privacy 2.0.0 give, as a table that the tests compare with.

jax brings no other use here, so it is no dependency. To make ``jax_privacy.json`` anew, in an environment of its own:

    pip install jax-privacy==2.0.0 && python tests/stats/jax_privacy_reference.py
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np

TABLE = Path(__file__).with_name("jax_privacy.json")
#: members above the threshold, members, non-members above it, non-members
COUNTS = (
    (50, 50, 0, 50),
    (500, 500, 0, 500),
    (500, 500, 500, 500),
    (450, 500, 50, 500),
    (95, 500, 5, 500),
    (40, 45, 1, 55),
    (7, 10, 1, 10),
    (1, 10, 0, 10),
    (0, 10, 3, 10),
    (3000, 5000, 1000, 5000),
)
LEVELS = ((0.05, 1e-5), (0.05, 1e-3), (1e-4, 1e-5), (0.01, 0.02))


def main() -> None:
    from jax_privacy import auditing

    rows = []
    for hits, members, alarms, nonmembers in COUNTS:
        inside, outside = (np.repeat([1.0, 0.0], [up, n - up]) for up, n in ((hits, members), (alarms, nonmembers)))
        auditor = auditing.CanaryScoreAuditor(inside, outside)
        at = {"threshold_strategy": auditing.Explicit(0.5)}
        for significance, delta in LEVELS:
            counts = {"hits": hits, "members": members, "alarms": alarms, "nonmembers": nonmembers}
            found = {
                "one_run": auditor.epsilon_one_run(significance, delta, **at),
                "one_run_fdp": auditor.epsilon_one_run_fdp(significance, delta, **at),
                "clopper_pearson": auditor.epsilon_clopper_pearson(significance, delta, one_sided=False, **at),
                # of the best of so many thresholds, each at significance / thresholds; the others tell nothing here
                "gdp": auditor.epsilon_from_gdp(significance, delta),
                "thresholds": len(auditor._fn_counts),
            }
            values = {name: round(float(value), 9) for name, value in found.items()}
            rows.append({**counts, "significance": significance, "delta": delta, **values})
    text = ",\n".join(json.dumps(row) for row in rows)
    TABLE.write_text(f'{{"library": "jax-privacy {version("jax-privacy")}", "rows": [\n{text}\n]}}\n')


if __name__ == "__main__":
    main()
