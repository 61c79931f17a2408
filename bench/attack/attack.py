"""The interface of an attack. No torch here.

An attack is one file in ``attacks/`` with ``api = 1``, a ``Config`` and ``build(config) -> Attack``. It gets a View
and unlabelled candidates and returns guesses, never metrics. It cannot reach labels, seeds, other parties' secrets or
plaintext, because nothing that it is handed holds them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.core.tokens import Tokens, TokenStats

if TYPE_CHECKING:
    from bench.attack.behaviour import Behaviour
    from bench.core.update import Array
    from bench.model.lora import LoraModel
    from bench.spec.run import PluginSpec, RunSpec
    from bench.view.openers.base import Opener
    from bench.view.view import Reading, View

T = TypeVar("T")
#: a game's name, as in ``bench.games.catalog``
GameName = str


@dataclass(frozen=True)
class Candidates:
    """Records that a game asks about, shuffled and unlabelled. ``silos[i]`` holds candidate i if anyone does.

    ``texts``: what the model sees of each, decoded from ``tokens`` and so cut where they are. ``groups`` (cluster ids)
    are not given to attacks; ids are opaque and carry no order.
    """

    ids: tuple[str, ...]
    silos: tuple[str, ...]
    texts: tuple[str, ...]
    tokens: Tokens


@dataclass(frozen=True)
class Guesses:
    """A membership attack's answer: several named scores, each (n,) float64, higher = more likely a member.

    ``missing``: scores that this view could not give, with the reason. ``reads``: what was read, for the result's
    ``reads`` field, e.g. "released adapter, round 2".
    """

    scores: Mapping[str, NDArray[np.float64]]
    reads: tuple[str, ...]
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """What a reconstruction game asks for: the records that ``silo`` trained on in ``round``.

    ``records``: how many distinct records that were (public nominal size). ``steps``: local steps.
    """

    round: int
    silo: str
    records: int
    steps: int


@dataclass(frozen=True)
class Reconstruction:
    """One target's answer. ``token_scores``: (vocabulary,) higher = more likely in the batch. ``token_set``: the ids
    the attack claims were there. ``sequences``: guessed records as token ids, at most ``target.records``."""

    target: Target
    token_scores: NDArray[np.float64]
    token_set: NDArray[np.int64]
    sequences: tuple[tuple[int, ...], ...]
    exact: bool
    reads: str = ""


@dataclass(frozen=True)
class Organisation:
    """One that may fill ``place`` (a silo's name) in the federation: texts of its kind that nobody trained on."""

    place: str
    tokens: Tokens
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """Scores of a game whose questions have several possible answers, higher = likelier. ``reads``: as in Guesses.

    ``scores``: (organisations,) float64 for participation; (records, silos) for source.
    """

    scores: NDArray[np.float64]
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Blank:
    """A record of ``silo`` with a secret of ``kind`` cut out: what stands before and after it, and ``choices`` of which
    one is the secret, in an order that says nothing. ``filled``: (choices,) the record with each choice in the blank,
    whole; ``inserted`` the same up to the end of the choice, predicted on the choice's own tokens only."""

    silo: str
    kind: str
    before: str
    after: str
    choices: tuple[str, ...]
    inserted: Tokens
    filled: Tokens


@dataclass(frozen=True)
class Filled:
    """An answer to blanks. ``readings``: for each victim, by name, the reading under which the game shall measure how
    probable its secrets are (None: nothing opened). ``scores``: per blank (choices,) higher = likelier."""

    readings: Mapping[str, Reading | None]
    scores: tuple[NDArray[np.float64], ...]
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Shares:
    """What is guessed of each victim's labels: ``shares[i]`` (labels,) of victim i, not negative, sum 1; None where
    nothing could be read of it."""

    shares: tuple[NDArray[np.float64] | None, ...]
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Shadow:
    """What the same coalition reads of another run of the same defense, under another planting.

    ``member``: (n,) whether that run trained on each of the candidates that the attack is asked about, in their order.
    """

    view: View
    member: NDArray[np.bool_]


@dataclass(frozen=True)
class Own:
    """The candidates that the coalition's own silos hold: what it may tune or train an attack on.

    ``silos[i]`` holds record i, and trained on it where ``member[i]``.
    """

    tokens: Tokens
    texts: tuple[str, ...]
    silos: tuple[str, ...]
    member: NDArray[np.bool_]


def until(tokens: Tokens, at: NDArray[np.integer]) -> Tokens:
    """Each record up to its position ``at[i]``, where alone a token is predicted."""
    predicted = np.zeros_like(tokens.predicted)
    predicted[np.arange(len(tokens)), at] = True
    width = int(at.max(initial=1)) + 1
    where = np.asarray(at, dtype=np.int32)
    return Tokens(tokens.ids[:, :width], where + 1, predicted[:, :width], where, tokens.lead)


class Tools(ABC):
    """What the harness lends every attack: the public model, memoised forward passes, the population, randomness.

    ``own``: the coalition's own records, None for one without silos. ``shadows``: as many shadow federations as the
    attack asks for. ``labels``: of the task, in order; ``population_labels`` (n,) the index of each population
    record's, -1 without one.
    """

    model: LoraModel
    rng: np.random.Generator
    population: Tokens
    population_texts: tuple[str, ...]
    own: Own | None = None
    shadows: tuple[Shadow, ...] = ()
    labels: tuple[str, ...] = ()
    population_labels: NDArray[np.int64] = np.zeros(0, np.int64)

    @abstractmethod
    def token_stats(self, source: Reading | None, tokens: Tokens) -> TokenStats:
        """One forward pass over ``tokens``, memoised by adapter and tokens, so that adversaries share it.

        ``source`` None: the base model. An ``adapter`` or ``upload`` reading: the base model under that adapter. A
        ``query`` reading: the released model behind its interface, which answers with log-probabilities of the
        text's own tokens only (``mean`` and ``sd`` are None).
        """

    def stats_under(self, adapter: Array, tokens: Tokens) -> TokenStats:
        """``token_stats`` under a flat adapter of the attack's own making, memoised in the same way."""
        raise TypeError(f"{type(self).__name__} runs no adapter of an attack's own making")

    def word_logp(
        self, source: Reading | None, tokens: Tokens, at: NDArray[np.integer], words: Sequence[int]
    ) -> NDArray[np.float64]:
        """(n, k) log-probability under ``source`` of each of ``words`` (k token ids) at position ``at[i]`` of record i,
        given what stands before it: prices of k texts a record, for which the harness takes one forward pass."""
        rows = np.arange(len(tokens))
        found = np.zeros((len(tokens), len(words)))
        for column, word in enumerate(words):
            ids = tokens.ids.copy()
            ids[rows, at] = word
            asked = until(replace(tokens, ids=ids), at)
            found[:, column] = self.token_stats(source, asked).logp[rows, at]
        return found

    def record_gradients(self, at: Array | None, tokens: Tokens) -> Iterator[Array]:
        """One (layout.size,) float32 array per record, in order: the gradient of its mean negative log-likelihood with
        respect to the adapter, at the flat adapter ``at`` (None: the base model, an adapter of zeros)."""
        from bench.model.gradients import record_gradients

        return record_gradients(self.model, at, tokens)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` gives; among all adversaries and attacks of a run that give the same ``key``, the first one's.
        The key names everything that the answer follows from, values by their digest."""
        return make()


class Attack(ABC):
    """What every attack says of itself. One derives from the class of its game (``bench.attack.by_game``), which says
    what the game asks; ``game``, and the method that it asks, may as well stand in a class derived from this one."""

    game: GameName
    #: reading kinds of which at least one must be in the view; where none is, the row is ``nothing-opened``
    needs: frozenset[str]
    #: what the attack goes by beside its view. "candidates": the texts that the game asks about, as an auditor or
    #: somebody who holds a copy has them. "population": only texts of their kind, so that it could be made by somebody
    #: who has never seen a record of the silos. Results of the latter say so
    knows: Literal["candidates", "population"] = "candidates"
    adaptive: bool = False
    #: the defense on whose run the conformance kit tries it, where a run in the clear has nothing for it to read
    ground: str = "fedavg"
    #: shadow federations that it wants (``Tools.shadows``)
    shadows: int = 0
    #: openers of its own, tried after the harness's; what they open enters the view that it gets
    openers: tuple[Opener, ...] = ()
    #: the adversaries that it is meant for, where it is not for all; rows of others are ``not-applicable``
    only: frozenset[str] | None = None
    #: how its coalition deviates, in a run of its own (``variant`` names it); None: it only looks
    behaviour: Behaviour | None = None
    #: when it goes among the attacks on one view, 0 first: those that take gradients, or ask of the whole population,
    #: get token statistics besides, which the others then need no passes for
    turn: int = 2

    def variant(self, adversary: str) -> PluginSpec | None:
        """The run of its own that this attack needs as ``adversary`` (``bench.training.variant``); None: any ordinary
        run."""
        return None

    def work(self, spec: RunSpec) -> float:
        """About how many records one row passes forward through the model, a backward pass counted as two; for
        estimates. Of one federation: shadows come on top."""
        return spec.pool.candidates * spec.federation.silos

    def budget(self, spec: RunSpec) -> str:
        """What bounds the work of an attack that searches, as one sentence; empty where nothing is searched."""
        return ""
