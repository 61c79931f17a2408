"""Names of the parties of a federation, as they stand in messages."""

from __future__ import annotations

SERVER = "server"
DEALER = "dealer"
#: a receiver, never a sender: what is sent to it is in every view
PUBLIC = "public"


def silo(index: int) -> str:
    """The name of silo ``index`` (from 0): ``"silo-0"``."""
    return f"silo-{index}"


def silo_index(party: str) -> int:
    """The index of a silo's name. Raises ValueError for any other party."""
    head, _, tail = party.partition("-")
    if head != "silo" or not tail.isdigit():
        raise ValueError(f"'{party}' is no silo")
    return int(tail)


def is_silo(party: str) -> bool:
    return party.startswith("silo-") and party[5:].isdigit()


#: what each standard adversary holds
HOLDS = {
    "user": "asks the released model for text and log-probabilities",
    "outsider": "holds the released adapter",
    "silo": "holds every global adapter, its own records and secrets",
    "server": "holds all that the protocol sends it",
    "server+silo": "the server and one silo together",
    "all-but-one": "the server and every silo but the victim",
}
