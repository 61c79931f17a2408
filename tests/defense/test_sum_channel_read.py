"""What a coalition reads of a channel of one upload and one sum (``bench.defense.sum_channel.read_all``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from bench.core.parties import DEALER, SERVER
from bench.core.update import Form, Update
from bench.defense.channel import Candidate, Knowledge
from bench.defense.defaults.plain import PlainChannel
from tests.defense.shifted import HEADER, LAYOUT, SILOS, SUMMANDS, Shifted, names, sent
from tests.defenses.exchange import Run, Sent, one_round, public

ALL = {"silo-0": [1, 2, 3, 4], "silo-1": [10, 20, 30, 40], "silo-0 silo-1": [11, 22, 33, 44]}


def held(run: Run, *coalition: str) -> dict[str, dict[str, Any]]:
    """The ``keys/`` entries of each party, as the harness hands them to a coalition."""
    return {p: {n.removeprefix("keys/"): v for n, v in run.states[p].items()} for p in coalition}


def knows(messages: Sequence[Any], keys: Mapping[str, Any], *coalition: str, **more: Any) -> Knowledge:
    return Knowledge(frozenset(coalition), public(LAYOUT, 2), messages, keys, {}, **more)


def told(found: Iterator[Candidate] | Any) -> dict[str, list[float]]:
    """What was read, by the silos that it is of; each once."""
    candidates = list(found)
    values = {" ".join(sorted(c.silos)): c.values.tolist() for c in candidates}
    assert len(values) == len(candidates)
    return values


@pytest.fixture(scope="module")
def run() -> Run:
    return one_round(Shifted("silos"), LAYOUT, SUMMANDS)


def test_with_a_key_every_upload_and_the_sum_are_read(run: Run) -> None:
    found = list(Shifted().read(knows(run.messages, held(run, SERVER), SERVER)))
    assert told(found) == ALL
    assert {(c.round, c.support) for c in found} == {(0, None)}
    assert [c.how for c in found] == [
        "the channel's own opening of an upload",
        "the channel's own opening of an upload",
        "the channel's own opening of a sum",
    ]


def test_a_silo_s_own_upload_is_left_out(run: Run) -> None:
    found = told(Shifted().read(knows(run.messages, held(run, "silo-1"), "silo-1")))
    assert found == {name: values for name, values in ALL.items() if name != "silo-1"}


def test_without_a_key_nothing_is_read_unless_none_is_needed(run: Run) -> None:
    assert told(Shifted().read(knows(run.messages, {}, SERVER))) == {}
    plain = one_round(PlainChannel("silos"), LAYOUT, SUMMANDS)
    assert told(PlainChannel().read(knows(plain.messages, {}, SERVER))) == ALL


def test_keys_that_several_hold_are_tried_once_and_others_each(run: Run) -> None:
    tried: list[dict[str, bytes]] = []

    class Counting(Shifted):
        def open(self, frames: Any, keys: Mapping[str, bytes], form: Form, count: int) -> Any:
            tried.append(dict(keys))
            return super().open(frames, keys, form, count)

    messages = [m for m in run.messages if m.sender == "silo-0"]
    same = held(run, SERVER, "silo-1")
    list(Counting().read(knows(messages, same, SERVER, "silo-1")))
    assert tried == [{"shift": b"\5"}]
    other = {"shift": np.array([6], np.uint8)}
    found = list(Counting().read(knows(messages, {**same, DEALER: other}, SERVER, "silo-1", DEALER)))
    # parties in the order of their names: the dealer comes first, and its key opens to something else
    assert [c.values.tolist() for c in found] == [[0, 1, 2, 3], [1, 2, 3, 4]]


def test_a_dealer_tries_each_group_of_keys_as_its_receivers_hold_it(run: Run) -> None:
    held_by = {"group-0/shift": [5], "group-1/shift": [7], "group-2/other": []}
    keys = {name: np.array(value, np.uint8) for name, value in held_by.items()}
    found = list(Shifted().read(knows(run.messages[1:2], {DEALER: keys}, DEALER)))
    assert [c.values.tolist() for c in found] == [[1, 2, 3, 4], [-1, 0, 1, 2]]


@dataclass(frozen=True)
class Thinned(Sent):
    thinned: bool = True


def test_what_is_no_upload_and_no_sum_or_was_dropped_or_is_malformed_is_passed_over(run: Run) -> None:
    upload, total = run.messages[1], run.messages[3]
    others = [
        Sent(0, "share", "silo-0", (SERVER,), upload.content),
        Sent(0, "share", SERVER, SILOS, total.content),
        Thinned(0, "upload", "silo-0", (SERVER,), upload.content),
        sent("upload", "silo-0"),
        sent("upload", "silo-0", b"{}", *upload.content[1:]),
        sent("sum", SERVER, b"[]", *total.content[1:]),
        sent("sum", SERVER, names(*SILOS)),
        sent("sum", SERVER, names(*SILOS), b"{}", *total.content[2:]),
    ]
    found = told(Shifted().read(knows([*others, upload], held(run, SERVER), SERVER)))
    assert found == {"silo-0": ALL["silo-0"]}


def test_a_sum_is_read_by_as_many_silos_as_it_names(run: Run) -> None:
    """The header decides how often the key was added; a lie about it gives other values, and no crash."""
    lie = sent("sum", SERVER, names("silo-0"), HEADER, *run.messages[3].content[2:])
    assert told(Shifted().read(knows([lie], held(run, SERVER), SERVER))) == {"silo-0": [16, 27, 38, 49]}


def test_a_round_s_support_is_that_of_its_uploads_and_sums() -> None:
    on = np.array([1, 3])
    updates = [Update(np.array(v, np.float32), LAYOUT, support=on) for v in ([1, 2], [10, 20])]
    run = one_round(Shifted("silos"), LAYOUT, updates, on)
    known = knows(run.messages, held(run, SERVER), SERVER, supports={0: on})
    assert told(Shifted().read(known)) == {
        "silo-0": [0, 1, 0, 2],
        "silo-1": [0, 10, 0, 20],
        "silo-0 silo-1": [0, 11, 0, 22],
    }
    assert told(Shifted().read(knows(run.messages, held(run, SERVER), SERVER))) == {}
