"""The organisations that records name (``Record.silo``): which there are, how large, and what each brings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from heapq import heapify, heapreplace
from unicodedata import normalize

from bench.core.errors import UsageError
from bench.corpus.task import Record
from bench.spec.run import FederationSpec, PoolSpec

#: characters of an organisation's name
MAX_NAME = 200
_OTHERWISE = "divide the records otherwise with --set federation.partition=iid"


def organisations(records: Iterable[Record]) -> dict[str, int]:
    """Records of every organisation, by its name, in alphabetical order: silo i is the i-th.

    Raises UsageError where a record names none, a name can't be shown on one line, two are spelt almost alike, or all
    records name the same.
    """
    counts: Counter[str] = Counter()
    without: list[str] = []
    for record in records:
        if record.silo is None:
            without.append(record.id)
        else:
            counts[record.silo] += 1
    if without:
        raise UsageError(
            f"{len(without)} of {len(without) + counts.total()} records name no organisation ('silo'), the first of "
            f"them {without[0]!r}: name one on every record, or {_OTHERWISE}."
        )
    spelt: dict[str, str] = {}
    for name in counts:
        if not 0 < len(name) <= MAX_NAME or not name.isprintable() or name.isspace():
            raise UsageError(
                f"The organisation {name[:MAX_NAME]!r} needs a name of 1 to {MAX_NAME} printable characters."
            )
        if (other := spelt.setdefault(" ".join(normalize("NFKC", name).casefold().split()), name)) != name:
            raise UsageError(
                f"The organisations '{other}' and '{name}' differ only in capitals, spaces or how letters are made: "
                "write one in one way."
            )
    if len(counts) < 2:
        raise UsageError(
            f"All records name the same organisation, {_listed(counts)}, and a federation has several: name them, or "
            f"{_OTHERWISE}."
        )
    return dict(sorted(counts.items()))


def brought(sizes: Mapping[str, int], federation: FederationSpec, pool: PoolSpec) -> dict[str, int]:
    """Candidates of every organisation: ``federation.silos x pool.candidates`` of them, divided by ``sizes``.

    Raises UsageError where there is another number of silos than of organisations, or one is too small to have records
    that are trained on and others that are not.
    """
    if federation.silos != len(sizes):
        raise UsageError(
            f"federation.silos is {federation.silos}, and the records name {len(sizes)} organisations "
            f"({_listed(sizes)}): leave federation.silos out, or {_OTHERWISE}."
        )
    found = apportion(federation.silos * pool.candidates, sizes)
    small = min(found, key=lambda name: found[name])
    if found[small] < 2:
        raise UsageError(
            f"The organisation '{small}' has {sizes[small]} of {sum(sizes.values())} records and would bring "
            f"{found[small]} of {sum(found.values())} candidates, where a game needs 2 or more: raise pool.candidates, "
            f"leave its records out, or {_OTHERWISE}."
        )
    return found


def apportion(total: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """``total`` in whole parts in proportion to ``sizes`` (all positive) by Webster's method (Balinski and Young 1982):
    one by one to whom n records give the largest n / (2 k + 1), k what it has already; of equals to the first."""
    queue = [(1 / size, number, name) for number, (name, size) in enumerate(sizes.items())]
    heapify(queue)
    found = dict.fromkeys(sizes, 0)
    for _ in range(total):
        _, number, name = queue[0]
        found[name] += 1
        heapreplace(queue, ((2 * found[name] + 1) / sizes[name], number, name))
    return found


def _listed(names: Iterable[str], most: int = 5) -> str:
    known = [f"'{name}'" for name in names]
    return ", ".join(known[:most]) + (f" and {len(known) - most} more" if len(known) > most else "")
