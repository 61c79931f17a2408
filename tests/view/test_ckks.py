"""The homomorphic channel that a named defense uses, with real keys and ciphertexts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.core.errors import CannotOpen
from bench.core.streams import SecretStreams
from bench.core.update import Form, Update
from bench.defense.channel import Candidate, Channel, Knowledge
from bench.defense.defaults.mean import Mean
from bench.view.openers.base import Traits
from bench.view.openers.distinguish import traits
from bench.view.view import View
from defenses.channels.ckks import CKKS
from tests.view.synthetic import Synthetic

Federate = Callable[..., Synthetic]
AS_PUBLISHED = {"aggregator": Mean(weighted=False, of="weights"), "size": 5000, "rounds": 1}


class ShipsTheSecretContext(CKKS):
    """Every upload begins with the sender's whole context, secret key included; ``read`` denies it."""

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        yield b"context:" + keys["secret"]
        yield from super().seal(update, keys, secret, round)

    def add(self, total: object | None, frame: bytes, keys: Mapping[str, bytes]) -> object:
        return frame if frame.startswith(b"context:") else super().add(total, frame, keys)

    def finish(self, total: object, keys: Mapping[str, bytes]) -> bytes:
        return b"" if isinstance(total, bytes) else super().finish(total, keys)

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        next(frames)
        return super().open(frames, keys, form, count)

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        raise CannotOpen("it is encrypted")


def uploads_read(view: View) -> set[str]:
    return {silo for reading in view.uploads() for silo in reading.silos}


def test_the_server_opens_no_upload_and_no_sum(federate: Federate, tmp_path: Path) -> None:
    run = federate(CKKS(), release="none", **AS_PUBLISHED)
    assert run.view(tmp_path / "view", "server", "server").readings == ()


def test_with_a_released_model_the_servers_row_is_the_outsiders(federate: Federate, tmp_path: Path) -> None:
    run = federate(CKKS(), release="final", **AS_PUBLISHED)
    server = run.view(tmp_path / "server", "server", "server")
    outsider = run.view(tmp_path / "outsider", "outsider")
    last = [view.last_adapter("silo-0") for view in (server, outsider)]
    assert last[0] is not None
    assert last[1] is not None
    assert last[0].handle == last[1].handle
    # it knows the adapters before and after the only round, and so the sum, as anyone who trains along would
    assert not server.uploads()


@pytest.mark.parametrize(
    ("channel", "coalition", "opened"),
    [
        (CKKS(), ("server", "silo-0"), {"silo-1", "silo-2"}),
        (CKKS(), ("silo-0",), set()),
        (CKKS("server"), ("server",), {"silo-0", "silo-1", "silo-2"}),
        (CKKS("server"), ("silo-0",), set()),
    ],
)
def test_who_holds_the_one_key_decides_who_reads(
    federate: Federate, tmp_path: Path, channel: Channel, coalition: tuple[str, ...], opened: set[str]
) -> None:
    run = federate(channel, release="none", **AS_PUBLISHED)
    view = run.view(tmp_path / "view", "server+silo", *coalition)
    assert uploads_read(view) == opened
    for reading in view.uploads():
        np.testing.assert_allclose(reading.values, run.summand(0, *reading.silos), atol=1e-6)
        assert reading.adapter is not None


def test_of_two_silos_each_gets_the_others_update_out_of_the_encrypted_sum(federate: Federate, tmp_path: Path) -> None:
    run = federate(CKKS(), silos=2, release="none", **AS_PUBLISHED)
    view = run.view(tmp_path / "view", "silo", "silo-0")
    assert uploads_read(view) == {"silo-1"}
    np.testing.assert_allclose(view.uploads()[0].values, run.summand(0, "silo-1"), atol=1e-6)


def test_a_secret_key_shipped_with_the_uploads_is_found(federate: Federate, tmp_path: Path) -> None:
    run = federate(ShipsTheSecretContext(), release="none", **AS_PUBLISHED)
    view = run.view(tmp_path / "view", "server", "server", traits=Traits())
    assert uploads_read(view) == {"silo-0", "silo-1", "silo-2"}
    assert all("secret key shipped" in r.how for r in view.uploads())
    for reading in view.uploads():
        np.testing.assert_allclose(reading.values, run.summand(0, *reading.silos), atol=1e-5)


def test_two_chosen_updates_are_not_told_apart(federate: Federate) -> None:
    run = federate(CKKS(), release="none", **AS_PUBLISHED)
    # lengths vary from ciphertext to ciphertext, by compression of random residues, whatever is encrypted
    assert traits(run.channel, run.public) == Traits()
