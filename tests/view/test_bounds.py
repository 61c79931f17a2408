"""Where an opener's work is bounded: what lies nearest is tried first, and what was not tried is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from attacks import mia
from bench.assess.assess import _lost
from bench.core.streams import SecretStreams
from bench.core.update import Form, Update
from bench.defense.channel import Candidate, Knowledge
from bench.view.openers import keys, keystream
from bench.view.openers.base import Hints, Traits
from bench.view.view import View
from tests.view import broken_channels as channels
from tests.view.synthetic import Synthetic
from tests.view.test_ckks import AS_PUBLISHED, ShipsTheSecretContext, uploads_read

Federate = Callable[..., Synthetic]


class KeyBeside(channels.Denies):
    """Every upload is sealed with a key of its own, which travels beside it within a small frame."""

    def keys(self, public: Any, secret: SecretStreams) -> Mapping[str, Mapping[str, bytes]]:
        return {name: {} for name in public.silos}

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        key = secret.token("own", round, size=32)
        yield secret.token("junk", round, size=20) + key + secret.token("more", round, size=8)
        yield self.seal_part(np.asarray(update.values, dtype="<f4"), key, secret.token("nonce", round, size=16))

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        return np.zeros(form.layout.size)


def test_a_key_beside_its_message_is_tried_in_every_round(federate: Federate, tmp_path: Path) -> None:
    run = federate(KeyBeside(), release="none", rounds=8)
    view = run.view(tmp_path / "view", "server", "server", traits=Traits())
    assert {(r.round, *r.silos) for r in view.uploads()} == set(run.updates)


def test_the_newest_of_many_keys_that_are_held_is_tried(federate: Federate, tmp_path: Path) -> None:
    """Of more keys than are tried the last ones count, and the others are named."""

    class Hoards(channels.Denies):
        def keys(self, public: Any, secret: SecretStreams) -> Mapping[str, Mapping[str, bytes]]:
            chaff = {f"a{n:03d}": secret.token("chaff", n, size=32) for n in range(100)}
            key = secret.token("shared", size=32)
            return {name: {**chaff, "shared": key} for name in public.silos}

    run = federate(Hoards(), release="none", rounds=1)
    run.transcript.drop_frames(-1)
    view = run.view(tmp_path / "view", "server+silo", "server", "silo-0", traits=Traits())
    assert uploads_read(view) == {"silo-1", "silo-2"}
    assert view.untried == (f"{101 * 6 - keys._MOST_KEYS} of {101 * 6} keys that the coalition holds, the oldest",)


@cache
def _decoys() -> tuple[bytes, ...]:
    """Contexts without a secret key, of three parties that have their own."""
    import tenseal as ts

    found = []
    for _ in range(3):
        context = ts.context(ts.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[40, 40])
        found.append(context.serialize(save_public_key=True, save_secret_key=False))
    return tuple(found)


class AmongOthers(ShipsTheSecretContext):
    """The secret context stands behind public ones, of which each holds three places where a context may begin."""

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        for frame in super().seal(update, keys, secret, round):
            mark = b"context:"
            yield mark + b"\0".join([*_decoys(), frame[len(mark) :]]) if frame.startswith(mark) else frame


def test_a_secret_context_is_found_behind_public_ones(federate: Federate, tmp_path: Path) -> None:
    run = federate(AmongOthers(), release="none", **AS_PUBLISHED)
    view = run.view(tmp_path / "view", "server", "server", traits=Traits())
    assert uploads_read(view) == {"silo-0", "silo-1", "silo-2"}
    assert view.untried == ()


def test_pairs_that_were_not_compared_are_said(
    federate: Federate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = federate(channels.Denies(), release="none", rounds=4)
    whole = run.view(tmp_path / "whole", "server", "server", traits=Traits())
    assert whole.untried == ()
    monkeypatch.setattr(keystream, "_MAX_PAIRS", 10)
    view = run.view(tmp_path / "view", "server", "server", traits=Traits())
    (said,) = view.untried
    assert said.startswith("56 pairs of 'upload' messages for one keystream")  # 12 messages: 66 pairs, 10 of them tried
    assert View.load(view.directory).untried == view.untried
    attack = mia.build(mia.Config())
    assert _lost([view, view], attack) == f"not tried: {said}"
    assert _lost([whole], attack) == ""


def test_pairs_near_each_other_go_first_and_of_these_the_newest() -> None:
    class Entry:
        def __init__(self, round: int, sender: str) -> None:
            self.message = self
            self.round, self.sender = round, sender

    group: Any = [Entry(r, f"silo-{i}") for r in range(400) for i in range(3)]
    pairs, left = keystream._pairs(group)
    assert len(pairs) + left == 1200 * 1199 // 2
    assert pairs[0] == (1198, 1199)
    assert len(set(pairs)) == len(pairs)
    first = [(group[i].round, group[j].round) for i, j in pairs[:800]]
    assert all(a == b for a, b in first)


def test_an_opener_may_say_what_it_leaves_out(federate: Federate, tmp_path: Path) -> None:
    def lazy(knowledge: Knowledge, hints: Hints) -> Iterator[Candidate]:
        hints.untried("half of it")
        yield from ()

    run = federate(channels.Denies(), release="none", supports={0: np.arange(0, 300, 2)})
    assert run.view(tmp_path / "view", "server", "server", openers=[lazy]).untried == ("half of it",)
