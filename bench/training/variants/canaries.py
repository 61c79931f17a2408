"""What canaries can be. Light to import, so that an attack's options can name it."""

from __future__ import annotations

from typing import Literal

#: tokens at random, texts unlike any record's, or records with another label than their own
Kind = Literal["random-tokens", "out-of-distribution", "mislabelled"]
