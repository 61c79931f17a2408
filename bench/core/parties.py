"""Names of the parties of a federation, as they stand in messages."""

from __future__ import annotations

import re

SERVER = "server"
DEALER = "dealer"
#: a receiver, never a sender: what is sent to it is in every view
PUBLIC = "public"


def silo(index: int) -> str:
    """The name of silo ``index`` (from 0): ``"silo-0"``."""
    return f"silo-{index}"


def silo_index(party: str) -> int:
    """The index of a silo's name. Raises ValueError for any other party."""
    if not is_silo(party):
        raise ValueError(f"'{party}' is no silo")
    return int(party[5:])


def is_silo(party: str) -> bool:
    """Whether ``silo`` writes this name: no leading zero and no digit of another script, so that no silo has two."""
    return _SILO.fullmatch(party) is not None


_SILO = re.compile("silo-(0|[1-9][0-9]{0,9})")


#: what each standard adversary holds
HOLDS = {
    "user": "asks the released model for text and log-probabilities",
    "outsider": "holds the released adapter",
    "silo": "holds every global adapter, its own records and secrets",
    "server": "holds all that the protocol sends it",
    "server+silo": "the server and one silo together",
    "all-but-one": "the server and every silo but the victim",
}
