"""The truth of every game: an attack that is told it beside its view scores fully, its opposite not at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bench.assess.assess import Assessor
from bench.assess.plays.table import Assessment
from bench.attack.attack import (
    Answers,
    Attack,
    Blank,
    Candidates,
    Filled,
    GameName,
    Guesses,
    Organisation,
    Reconstruction,
    Shares,
    Target,
    Tools,
)
from bench.conformance.playground import Playground
from bench.corpus.planting import Planting
from bench.spec.run import PluginSpec
from bench.training.materials import Materials
from bench.training.training import training_tokens
from bench.training.variant import Variant
from bench.view.view import View
from tests.grounds import ground as trained
from tests.grounds import untrained

ANY = frozenset({"adapter", "upload", "query"})


class Oracle(Attack):
    """Told everything. ``sign`` -1: says the opposite. ``seen``: what tools it was lent."""

    needs = ANY

    def __init__(self, game: GameName, ground: Playground, sign: int = 1, shadows: int = 0) -> None:
        self.game, self.ground, self.sign, self.shadows = game, ground, sign, shadows
        self.lent: list[tuple[View, Candidates, Tools]] = []

    def variant(self, adversary: str) -> PluginSpec | None:
        return self.ground.run.spec.variant

    @property
    def planting(self) -> Planting:
        return self.ground.run.planting

    @property
    def materials(self) -> Materials:
        return self.ground.materials

    def texts(self, ids: Sequence[str]) -> set[str]:
        return set(self.materials.texts(ids))

    def members(self, planting: Planting | None = None) -> set[str]:
        held = (planting or self.planting).members
        return self.texts([i for ids in held.values() for i in ids])

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        self.lent.append((view, candidates, tools))
        known = self.members()
        scores = np.array([float(text in known) for text in candidates.texts]) * self.sign
        return Guesses({"loss": scores, "other": np.zeros(len(scores))}, ("told",))

    def attribute(self, view: View, records: Candidates, silos: Sequence[str], tools: Tools) -> Answers:
        held = [self.texts(self.planting.members[silo]) for silo in silos]
        scores = np.array([[float(text in mine) for mine in held] for text in records.texts])
        return Answers(scores * self.sign, ("told",))

    def took_part(self, view: View, organisations: Sequence[Organisation], tools: Tools) -> Answers:
        right = [set(one.texts) == self.texts(self.planting.members[one.place]) for one in organisations]
        return Answers(np.array(right, np.float64) * self.sign, ("told",))

    def label_shares(self, view: View, victims: Sequence[str], tools: Tools) -> Shares:
        side = self.planting.members if self.sign > 0 else self.planting.nonmembers
        found = []
        for victim in victims:
            gold = self.materials.gold(side[victim])
            found.append(np.bincount(gold[gold >= 0], minlength=len(tools.labels)) / max(1, int((gold >= 0).sum())))
        return Shares(tuple(found), ("told",))

    def fill(self, view: View, blanks: Sequence[Blank], tools: Tools) -> Filled:
        records = self.materials.pool.records
        known = {silo: {records[i].text for i in ids} for silo, ids in self.planting.members.items()}
        scores = [
            self.sign * np.array([float(b.before + choice + b.after in known[b.silo]) for choice in b.choices])
            for b in blanks
        ]
        return Filled({v: view.last_adapter(v) for v in view.victims}, tuple(scores), ("told",))

    def reconstruct(self, view: View, targets: Sequence[Target], tools: Tools) -> Sequence[Reconstruction]:
        found = []
        for target in targets:
            run = self.ground.run
            tokens = training_tokens(run.case, target.silo)
            batches = run.transcript.training(target.round)[target.silo].batches
            here = tokens.take(sorted({row for batch in batches for row in batch}))
            # the last token of a record is only ever predicted: it leaves no gradient of its own
            rows = [tuple(map(int, ids[: n - 1])) for ids, n in zip(here.ids, here.lengths, strict=True)]
            present = np.unique(np.concatenate([np.array(row) for row in rows]))
            if self.sign < 0:
                present = np.setdiff1d(np.arange(self.materials.model.vocab_size), present)
                rows = [tuple(map(int, present[:4]))]
            scores = np.zeros(self.materials.model.vocab_size)
            scores[present] = 1.0
            found.append(Reconstruction(target, scores, present, tuple(rows[: target.records]), True, "told"))
        return found


def values(found: Assessment) -> dict[str, float]:
    assert found.status == "ok", found.note
    return {f.name: f.value for f in found.leakage if f.value is not None}


@pytest.fixture(scope="module")
def sentences() -> Playground:
    return untrained("membership")


@pytest.fixture(scope="module")
def notes() -> Playground:
    return untrained("source")


def test_membership_follows_the_planting(sentences: Playground) -> None:
    assert values(sentences.assess("oracle", Oracle("membership", sentences), "server"))["auc"] == 1
    # a choice among scores may turn to the constant one, which is chance
    opposite = values(sentences.assess("oracle", Oracle("membership", sentences, -1), "server"))
    assert opposite["auc"] <= 0.5


def test_a_shadow_s_members_are_those_of_its_own_planting_in_the_candidates_order(sentences: Playground) -> None:
    oracle = Oracle("membership", sentences, shadows=2)
    sentences.assess("oracle", oracle, "silo")
    truths = [oracle.members(shadow.planting) for shadow in sentences.shadows(2)]
    assert truths[0] != truths[1] != oracle.members()
    assert len([view for view, *_ in oracle.lent if view.adversary == "silo"]) == 2
    for _, candidates, tools in oracle.lent:
        for shadow, known in zip(tools.shadows, truths, strict=True):
            assert list(shadow.member) == [text in known for text in candidates.texts]
            assert 0 < shadow.member.sum() < len(shadow.member)


def test_a_coalition_is_lent_its_own_silos_candidates_and_no_other_s(sentences: Playground) -> None:
    oracle = Oracle("membership", sentences)
    sentences.assess("oracle", oracle, "silo")
    sentences.assess("oracle", oracle, "server")
    silos, (server,) = ([one for one in oracle.lent if one[0].adversary == who] for who in ("silo", "server"))
    assert server[2].own is None
    for view, candidates, tools in silos:
        own = tools.own
        assert own is not None
        (mine,) = view.coalition
        held = oracle.texts((*oracle.planting.members[mine], *oracle.planting.nonmembers[mine]))
        assert set(own.texts) == held
        assert not held & set(candidates.texts)
        assert set(own.silos) == {mine}
        assert list(own.member) == [text in oracle.texts(oracle.planting.members[mine]) for text in own.texts]


def test_a_score_that_one_coalition_lacks_is_no_score_of_the_sheet(sentences: Playground) -> None:
    extra: dict[str, np.ndarray] = {}

    class Uneven(Oracle):
        def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
            guesses = super().infer(view, candidates, tools)
            more = {"extra": np.ones(len(candidates.ids))} if view.adversary == "silo" and not extra else {}
            extra.update(more)
            return Guesses({**more, **guesses.scores}, guesses.reads)

    found = sentences.assess("oracle", Uneven("membership", sentences), "silo")
    assert {f.name for f in found.leakage if f.name.startswith("auc")} >= {"auc", "auc:loss", "auc:other"}
    assert not any("extra" in f.name for f in found.leakage)
    assert "no extra: not every coalition has it" in found.note


class Mangled(Oracle):
    """Knows the truth where it sees a released model only; goes by uploads, which say nothing, where it has them."""

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        guesses = super().infer(view, candidates, tools)
        if not view.uploads():
            return guesses
        noise = np.random.default_rng(0).normal(size=len(candidates.ids))
        return Guesses({"loss": noise}, ("an upload",))


def test_a_coalition_that_prefers_a_mangled_upload_is_no_safer_than_its_part(sentences: Playground) -> None:
    assessor = Assessor(sentences.run, sentences.memo)
    mangled = Mangled("membership", sentences)
    strong = assessor.assess("mangled", mangled, "all-but-one")
    assert values(strong)["auc"] == 1
    assert values(strong)["auc:loss"] < 0.9
    assert values(strong)["auc-over:outsider"] == 0
    asked = [view.adversary for view, *_ in mangled.lent]
    assert assessor.assess("mangled", mangled, "outsider").status == "ok"
    assert sorted(set(asked)) == ["all-but-one", "outsider", "server", "server+silo", "silo", "user"]
    first = len(mangled.lent)
    assessor.assess("mangled", mangled, "server")
    assert [view.adversary for view, *_ in mangled.lent[first:]] == ["server"]  # its parts have been asked


def test_source_follows_the_planting(notes: Playground) -> None:
    assert values(notes.assess("oracle", Oracle("source", notes), "server"))["source_accuracy"] == 1
    assert values(notes.assess("oracle", Oracle("source", notes, -1), "server"))["source_accuracy"] == 0


def test_property_is_graded_against_what_was_trained_on(notes: Playground) -> None:
    right = values(notes.assess("oracle", Oracle("property", notes), "server"))
    assert right["similarity"] == 1
    assert right["majority"] == 1
    assert values(notes.assess("oracle", Oracle("property", notes, -1), "server"))["similarity"] < 1


def test_extraction_asks_for_the_secret_that_was_cut_out(notes: Playground) -> None:
    right = values(notes.assess("oracle", Oracle("extraction", notes), "server"))
    wrong = values(notes.assess("oracle", Oracle("extraction", notes, -1), "server"))
    assert right["inferred"] == 1
    assert wrong["inferred"] == 0
    # what the game measures itself does not listen to the attack
    assert right["discoverable"] == wrong["discoverable"]


def test_reconstruction_is_graded_against_the_batch() -> None:
    ground = trained("reconstruction")
    right = values(ground.assess("oracle", Oracle("reconstruction", ground), "server"))
    assert right["token_recall"] == right["token_precision"] == right["exact_order"] == right["rouge_l"] == 1
    assert values(ground.assess("oracle", Oracle("reconstruction", ground, -1), "server"))["token_recall"] == 0


def test_participation_asks_who_trained() -> None:
    ground = untrained("participation", PluginSpec(name="participation"))
    run = ground.run
    owner = {i: who for who, ids in ground.materials.pool.silos.items() for i in ids}
    for place in run.transcript.public.silos:
        trained, asked, other = (
            {owner[i] for i in ids}
            for ids in (run.case.trained.members[place], run.planting.members[place], run.planting.nonmembers[place])
        )
        assert trained == asked != other
        assert not set(run.case.trained.members[place]) & set(run.planting.members[place])
    assert values(ground.assess("oracle", Oracle("participation", ground), "server"))["participation_accuracy"] == 1
    opposite = ground.assess("oracle", Oracle("participation", ground, -1), "server")
    assert values(opposite)["participation_accuracy"] == 0


def test_an_ordinary_run_deviates_in_nothing(sentences: Playground) -> None:
    run = sentences.run
    assert Variant().nominal_size(7, run.spec) == 7
    assert run.case.trained is run.planting
    assert not run.spec.active
