"""The harness's own openers: tried on every coalition's knowledge, whatever the channel says about itself."""

from __future__ import annotations

from bench.view.openers.base import Opener
from bench.view.openers.distinguish import distinguishable
from bench.view.openers.keys import shipped_keys
from bench.view.openers.keystream import reused_keystream
from bench.view.openers.lattice_keys import shipped_contexts
from bench.view.openers.lengths import lengths_and_headers
from bench.view.openers.numeric import numeric

#: In this order; the last two speak only of messages that none before has opened.
OPENERS: tuple[Opener, ...] = (
    numeric,
    shipped_keys,
    shipped_contexts,
    reused_keystream,
    lengths_and_headers,
    distinguishable,
)
