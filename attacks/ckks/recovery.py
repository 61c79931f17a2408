"""The whole attack on what a coalition received: parameters, sums that are known well enough, the key, the uploads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from attacks.ckks import exact
from attacks.ckks.blobs import Ciphertext, Scheme, Words, scheme_of
from attacks.ckks.field import Field
from attacks.ckks.frames import FORMS, Lock, Sum, cuts, sums, uploads
from attacks.ckks.published import PRECISIONS, RELATIONS, Precision, Relation, Round, rounds
from attacks.ckks.report import HOW, sentence
from attacks.ckks.secret import solve
from attacks.ckks.slots import Float, Integers, Slots
from bench.core.errors import CannotOpen
from bench.defense.channel import Candidate, Knowledge
from bench.view.openers.base import Guess, Hints, terms_of

#: sums that are looked at for integers, and taken apart, under one relation
_GLANCES, _ATTEMPTS = 3, 12


@dataclass(frozen=True)
class Known:
    """One ciphertext of a sum whose slots are all published. ``deviation``: what is left open, in coefficients."""

    sum: Sum
    index: int
    span: slice
    around: Round
    deviation: float


@dataclass(frozen=True)
class Found:
    """A key, what it opens, and how well the published averages were known: ``outlook[p]`` is the deviation of the
    second best sum had they been released at precision p."""

    lock: Lock
    key: Words
    outlook: dict[Precision, float]
    precision: Precision


class NotFound(CannotOpen):
    """No key. ``outlook``: as in ``Found``, where there are sums at all."""

    def __init__(self, why: str, outlook: dict[Precision, float] | None = None) -> None:
        super().__init__(why)
        self.outlook = outlook or {}


def opener(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
    """Every silo's upload that is not read yet, and what was found as a reading of kind "metadata"."""
    left = [m for m in uploads(knowledge) if not hints.read(terms_of(m.round, (m.sender,)))]
    if not left:
        return
    try:
        found = recover(knowledge)
    except CannotOpen as error:
        yield _note(f"no {HOW}: {error}", getattr(error, "outlook", {}))
        return
    yield _note(f"{HOW} at {found.precision}", found.outlook)
    for message in left:
        try:
            values = found.lock.open_upload(message, found.key)
        except CannotOpen:
            continue
        yield Candidate(message.round, frozenset({message.sender}), values, HOW)


def _note(how: str, outlook: dict[Precision, float]) -> Guess:
    """What a view's metadata says: ``values`` are the deviations of ``outlook``, in the order of ``PRECISIONS``."""
    values = np.array([outlook[p] for p in PRECISIONS]) if outlook else np.zeros(0)
    said = f"{how}; {sentence(outlook)}" if outlook else how
    return Guess(-1, frozenset(), values, said, form="metadata")


def recover(knowledge: Knowledge) -> Found:
    """The key. Raises NotFound with the reason."""
    published = rounds(knowledge)
    if not published:
        raise NotFound("no average of the summands' layout is published")
    all_sums = [s for s in sums(knowledge) if s.message.round in published]
    failed: list[NotFound] = []
    for lock in _locks(knowledge):
        fitting = [total for total in all_sums if lock.fits(total)]
        if not fitting:
            continue
        try:
            return _recover(lock, fitting, published)
        except NotFound as error:
            failed.append(error)
        except CannotOpen as error:
            failed.append(NotFound(str(error)))
    if not failed:
        raise NotFound("no sum is made of CKKS ciphertexts whose parameters are known")
    raise min(failed, key=lambda error: min(error.outlook.values(), default=np.inf))


def schemes(knowledge: Knowledge) -> list[Scheme]:
    """The CKKS parameters among the keys that the coalition holds or was sent."""
    held = (np.asarray(v, dtype=np.uint8).tobytes() for keys in knowledge.keys.values() for v in keys.values())
    sent = (
        message.frame(i) for message in knowledge.messages if message.round < 0 for i in range(len(message.lengths))
    )
    found: dict[Scheme, None] = {}
    for context in chain(held, sent):
        try:
            found[scheme_of(context)] = None
        except CannotOpen:
            continue
    return list(found)


def _locks(knowledge: Knowledge) -> Iterator[Lock]:
    """Every way in which ciphertexts under the parameters at hand may be cut and written."""
    for scheme in schemes(knowledge):
        try:
            field, slots = Field(scheme.primes[0], scheme.degree), Slots(scheme.degree)
        except CannotOpen:
            continue
        for cut in cuts(knowledge.public.layout, scheme.slots):
            for parse, marked in FORMS:
                yield Lock(scheme, parse, marked, cut, field, slots)


def _recover(lock: Lock, all_sums: list[Sum], published: dict[int, Round]) -> Found:
    """The key under the first relation behind which integers are found. Raises NotFound."""
    scale = _scale(lock, all_sums[0])
    best: NotFound | None = None
    for relation in RELATIONS:
        pool = _pool(lock, all_sums, published, relation, scale)
        if len(pool) < 2:
            why = f"fewer than two sums of {lock.scheme.slots} published values, all slots of a ciphertext"
            best = best or NotFound(why)
            continue
        outlook = _outlook(lock, pool, relation, scale)
        try:
            key = _from_pool(lock, pool, relation, scale)
        except NotFound as error:
            if best is None or not best.outlook or min(outlook.values()) < min(best.outlook.values()):
                best = NotFound(str(error), outlook)
            continue
        return Found(lock, key, outlook, pool[0].around.after.precision)
    raise best or NotFound("no sum is known")


def _scale(lock: Lock, total: Sum) -> float:
    """What a published mean is multiplied by in a sum's plaintext, up to public weights.

    A sum that was multiplied by 1/n and rescaled lost a prime q; its scale is then label**2 / q, whatever it says."""
    ciphertext = lock.ciphertext(total, 0)
    if ciphertext.level == lock.scheme.fresh:
        return ciphertext.scale * total.weight
    return ciphertext.scale**2 / lock.scheme.primes[ciphertext.level] * (total.weight / total.count)


def _pool(
    lock: Lock, all_sums: list[Sum], published: dict[int, Round], relation: Relation, scale: float
) -> list[Known]:
    """All ciphertexts of sums whose slots are all published, the best known first."""
    pool = []
    for total in all_sums:
        around = published[total.message.round]
        if around.mean(relation) is None:
            continue
        errors = around.errors(relation) * scale
        for index, span in enumerate(lock.cut):
            if span.stop - span.start == lock.scheme.slots:
                pool.append(Known(total, index, span, around, exact.deviation(errors[span])))
    return sorted(pool, key=lambda known: known.deviation)


def _outlook(lock: Lock, pool: list[Known], relation: Relation, scale: float) -> dict[Precision, float]:
    """By precision of the releases, the deviation of the second best ciphertext: two are needed."""
    around = {id(known.around): known.around for known in pool}
    found = {}
    for precision in PRECISIONS:
        errors = {key: value.errors(relation, precision) * scale for key, value in around.items()}
        found[precision] = sorted(exact.deviation(errors[id(known.around)][known.span]) for known in pool)[1]
    return found


def _from_pool(lock: Lock, pool: list[Known], relation: Relation, scale: float) -> Words:
    """The key from the first two ciphertexts that can be taken apart and give one. Raises NotFound."""
    if pool[1].deviation > exact.REACH:
        left = f"{pool[1].deviation:.3g} units of its coefficients"
        raise NotFound(f"the second best known sum is known to {left} only")
    if not any(_looks_whole(lock, known, relation, scale) for known in pool[:_GLANCES]):
        raise NotFound(f"the sums are no {relation} that were averaged as published")
    solved: list[tuple[Ciphertext, Integers]] = []
    why = "no sum"
    for known in pool[:_ATTEMPTS]:
        try:
            new = lock.ciphertext(known.sum, known.index), _take_apart(lock, known, relation, scale)
        except CannotOpen as error:
            why = str(error)
            continue
        for old in solved:
            try:
                return solve(lock.field, lock.slots, (old, new))
            except CannotOpen as error:
                why = str(error)
        solved.append(new)
    untried = len(pool) - _ATTEMPTS
    more = f"; {untried} of {len(pool)} ciphertexts, those known worst, were not tried" if untried > 0 else ""
    raise NotFound(why + more)


def _plaintext(known: Known, relation: Relation, scale: float) -> tuple[Float, Float]:
    """(values, deviations) of a ciphertext's slots, times the scale."""
    mean = known.around.mean(relation)
    assert mean is not None
    return mean[known.span] * scale, known.around.errors(relation)[known.span] * scale


def _looks_whole(lock: Lock, known: Known, relation: Relation, scale: float) -> bool:
    return exact.looks_whole(lock.slots, _plaintext(known, relation, scale)[0])


def _take_apart(lock: Lock, known: Known, relation: Relation, scale: float) -> Integers:
    return exact.integers(lock.slots, *_plaintext(known, relation, scale))
