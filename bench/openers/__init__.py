"""The harness's own openers: tried on every coalition's knowledge, whatever the channel says about itself."""

from __future__ import annotations

from bench.openers.base import Opener
from bench.openers.contexts import shipped_contexts
from bench.openers.distinguish import distinguishable
from bench.openers.keys import shipped_keys
from bench.openers.keystream import reused_keystream
from bench.openers.lengths import lengths_and_headers
from bench.openers.numeric import numeric

#: In this order; the last two speak only of messages that none before has opened.
OPENERS: tuple[Opener, ...] = (
    numeric,
    shipped_keys,
    shipped_contexts,
    reused_keystream,
    lengths_and_headers,
    distinguishable,
)
