"""Putting shares together, and taking masks off sums: what the server does, and what a coalition can do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.update import Form
from defenses.channels.secagg import masks, packing, shamir, wire
from defenses.channels.secagg.masks import Mask
from defenses.channels.secagg.primitives import agreement_public
from defenses.channels.secagg.session import Roster, Session

Shares = dict[str, dict[int, bytes]]
#: a frame of a sum by its number
Stored = Callable[[int], NDArray[Any]]


class Secrets:
    """Self masks and mask keys of a round's silos: known outright, or from shares once there are enough."""

    def __init__(self, session: Session, roster: Roster) -> None:
        self.session, self.roster = session, roster
        self._self_masks: dict[str, bytes] = {}
        self._mask_keys: dict[str, bytes] = {}
        self._self_shares: Shares = defaultdict(dict)
        self._mask_shares: Shares = defaultdict(dict)

    def know(self, silo: str, self_mask: bytes | None, mask_key: bytes | None) -> None:
        """A silo's own secrets (32 bytes each), as far as they are held."""
        if self_mask is not None:
            self._self_masks[silo] = self_mask
        if mask_key is not None:
            self._mask_keys[silo] = mask_key

    def learn_shares(self, holder: str, owner: str, shares: bytes) -> None:
        """The two shares (64 bytes: mask key, self mask) that ``owner`` gave to ``holder``."""
        point = self.session.point(holder)
        self._mask_shares[owner][point] = shares[: shamir.SIZE]
        self._self_shares[owner][point] = shares[shamir.SIZE :]

    def learn_revealed(self, holder: str, body: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The body of an ``unmask`` message; returns its survivors, and survivors and dropped together, in the public
        order. Raises SiloBenchError where it is malformed."""
        silos = self.session.silos
        width, point = wire.set_size(silos), self.session.point(holder)
        survivors = wire.decode_set(body[:width], silos)
        dropped = wire.decode_set(body[width : 2 * width], silos)
        shares = wire.records(body[2 * width :], shamir.SIZE, len(survivors) + len(dropped))
        for silo, share in zip(survivors, shares, strict=False):
            self._self_shares[silo][point] = share
        for silo, share in zip(dropped, shares[len(survivors) :], strict=True):
            self._mask_shares[silo][point] = share
        return survivors, tuple(s for s in silos if s in {*survivors, *dropped})

    def self_mask(self, silo: str) -> bytes | None:
        """None where it is not known. A wrong share gives a wrong mask: nothing public tells."""
        if silo not in self._self_masks and len(self._self_shares[silo]) >= self.session.limits.threshold:
            self._self_masks[silo] = shamir.recover(self._self_shares[silo], self.session.limits.threshold)
        return self._self_masks.get(silo)

    def mask_key(self, silo: str) -> bytes | None:
        """None where it is not known. Raises SiloBenchError where the shares give another key than was advertised."""
        if silo not in self._mask_keys and len(self._mask_shares[silo]) >= self.session.limits.threshold:
            key = shamir.recover(self._mask_shares[silo], self.session.limits.threshold)
            if agreement_public(key) != self.roster.adverts[silo].mask:
                raise SiloBenchError(f"the shares of the mask key of {silo} do not give the key that it advertised")
            self._mask_keys[silo] = key
        return self._mask_keys.get(silo)

    def pair_mask(self, owner: str, other: str) -> Mask | None:
        """The mask that ``owner`` added for ``other``, from either one's key; None where neither is known."""
        own = self.mask_key(owner)
        if own is not None:
            return self.session.pair_mask(self.roster, owner, own, other)
        theirs = self.mask_key(other)
        if theirs is not None:
            return self.session.pair_mask(self.roster, other, theirs, owner).opposite
        return None


def masks_on(summed: Collection[str], sharers: Sequence[str], secrets: Secrets) -> list[Mask]:
    """The masks on the sum of the uploads of ``summed``, out of the ``sharers`` (U2) among whom masks were agreed:
    every self mask, and the pairwise masks towards those who are not summed; the others cancel.

    Raises SiloBenchError where one is not known.
    """
    found: list[Mask | None] = []
    for silo in summed:
        own = secrets.self_mask(silo)
        found.append(None if own is None else Mask(own))
        found += [secrets.pair_mask(silo, other) for other in sharers if other not in summed]
    known = [mask for mask in found if mask is not None]
    if len(known) != len(found):
        raise SiloBenchError(f"{len(found) - len(known)} masks of round {secrets.session.round} can't be lifted")
    return known


def opened(
    secrets: Secrets, summed: Sequence[str], sharers: Sequence[str], form: Form, frame: Stored, extra: Stored
) -> NDArray[np.float64]:
    """The sum of the updates of ``summed``: ``masks_on`` their uploads' sum are taken off its frames, and the payload
    opens the rest with the sums of the extra frames. One frame and one mask are in memory at a time, besides the
    vector."""
    session = secrets.session
    agreed = session.agreed(secrets.roster)
    shape = session.payload.shape(form, agreed.silos)
    pads = [mask.opposite for mask in masks_on(summed, sharers, secrets)]
    vector = np.empty(shape.count, dtype=np.int64)
    start = 0
    for index, size in enumerate(packing.frame_sizes(shape.count, shape.bits)):
        words = np.array(frame(index), dtype=packing.dtype_of(shape.bits))
        masks.apply(words, pads, start, shape.bits)
        vector[start : start + size] = packing.centred(words, shape.bits)
        start += size
    return session.payload.open(vector, map(extra, range(len(shape.extras))), form, agreed)
