"""What secure aggregation sums: the hook by which another channel travels through the same protocol.

The protocol adds one integer vector of every silo modulo ``2**bits`` and shows the server nothing but the sum over the
survivors, the silos whose whole upload arrived. A *payload* says what that vector is. Beside it a silo may send *extra
frames*, which the protocol does not mask: the server adds them over exactly the survivors, so that the sum of the
vectors and the sums of the extra frames are over the same silos. (Secure aggregation proper sums the updates and has
no extra frames; a lattice channel sums its keys and sends its ciphertexts as extra frames.)

Order of calls. At a silo, in its one upload of a round: ``seal``. At the server, when uploads have arrived: ``shape``,
then ``add_extra`` for frame 0 of every survivor, for frame 1 of every survivor, and so on; the protocol keeps the
running sums in the server's state. When enough shares have arrived: ``open``. A coalition's ``read`` calls the same
functions, for sets of silos that it can unmask, a single silo among them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.streams import SecretStreams
from bench.core.update import Form, Update

#: an opened sum is a signed 64-bit integer, and must not wrap
MAX_BITS = 62


@dataclass(frozen=True)
class Agreed:
    """What all silos of a round and the server hold in common before anything is uploaded.

    ``silos``: how many silos may take part in the round (its participants, whether they turn up or not): what moduli
    must have room for. ``randomness``: 32 public bytes, SHA-256 over the round and the sorted (silo, fresh nonce)
    pairs of all that advertised keys. A silo goes on only if its own nonce is in it, so nobody else can have chosen it
    before; whoever speaks last can still try many nonces and keep the hash that it likes best. Fresh in every round.
    """

    round: int
    silos: int
    randomness: bytes


@dataclass(frozen=True)
class Shape:
    """What an upload looks like; a function of public things, so that the server checks lengths before it reads.

    ``count``: values of the masked vector. ``bits``: they are added modulo ``2**bits``, 1 <= bits <= 62. ``extras``:
    the length in bytes of every extra frame, in order (at most about 1 MiB each; the harness's limit is 64 MiB).
    """

    count: int
    bits: int
    extras: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sealed:
    """One silo's upload before masking.

    ``vector``: shape (count,), int64; the sum over all silos must lie in [-2**(bits-1), 2**(bits-1)). ``extras``: the
    extra frames, made lazily, of the lengths that ``Shape.extras`` gives.
    """

    vector: NDArray[np.int64]
    extras: Iterator[bytes]


class Payload(ABC):
    """The part of secure aggregation that knows what is summed. Holds no state between calls."""

    @abstractmethod
    def shape(self, form: Form, silos: int) -> Shape:
        """The shape of every upload of a round with updates of ``form`` in which ``silos`` silos may take part.

        Raises SiloBenchError where ``form`` can't be summed (no grid, too many bits).
        """

    @abstractmethod
    def seal(self, update: Update, agreed: Agreed, secret: SecretStreams) -> Sealed:
        """A silo's vector and extra frames. ``secret`` is the silo's own: name a stream by ``agreed.round``.

        Called once per silo and round. Raises SiloBenchError for an update that can't be summed.
        """

    def add_extra(
        self, total: NDArray[Any] | None, index: int, frame: bytes, form: Form, silos: int
    ) -> NDArray[np.generic]:
        """Add one silo's extra frame ``index`` to the running sum of that frame (None: start one).

        ``frame`` has the length that ``shape`` gave; all else about it is unchecked. Returns an array of any dtype and
        shape, which the protocol stores and hands back. Raises SiloBenchError on bad bytes.
        """
        raise SiloBenchError(f"{type(self).__name__} has no extra frames")

    @abstractmethod
    def open(
        self, vector: NDArray[np.int64], extras: Iterator[NDArray[Any]], form: Form, agreed: Agreed
    ) -> NDArray[np.float64]:
        """The sum of the updates, shape (layout.size,), from the sum of the vectors of some silos and the sums of their
        extra frames, in order, read one by one.

        ``vector``: shape (count,), centred modulo 2**bits. The same call opens a single silo's upload, for a coalition
        that could unmask it. Raises SiloBenchError where the values contradict ``form``.
        """
