"""The reconstruction game: figures by hand, failures as zeros, one-to-one assignment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import games
from bench.attack.attack import Reconstruction, Target
from bench.core.errors import SiloBenchError
from bench.core.tokens import Tokens
from bench.games import baselines, reconstruction_grading
from bench.games.matching import Rouge, assign, grams, overlap_f1
from bench.games.reconstruction import BASELINE
from bench.games.reconstruction_grading import grade
from bench.games.reconstruction_sheet import RECORD_FIGURES, TARGET_FIGURES
from bench.spec.result import Leakage

VOCABULARY = 40


def decode(ids: Sequence[int]) -> str:
    return " ".join(f"w{i}" for i in ids)


def target(round: int = 0, silo: str = "silo-0", records: int = 1) -> Target:
    return Target(round, silo, records, steps=1)


def answer(
    of: Target, held: Sequence[int], sequences: Sequence[Sequence[int]] = (), scores: np.ndarray | None = None
) -> Reconstruction:
    if scores is None:
        scores = np.isin(np.arange(VOCABULARY), held).astype(float)
    return Reconstruction(of, scores, np.array(held, np.int64), tuple(tuple(s) for s in sequences), exact=True)


def figures(
    targets: list[Target],
    truth: list[list[Sequence[int]]],
    answers: list[Reconstruction],
    baseline: list[Reconstruction] | None = None,
) -> dict[str, Leakage]:
    scored = games.leakage(grade(targets, truth, answers, baseline or [], decode).sheet)
    assert not scored.void
    return {row.name: row for row in scored.leakage}


def test_a_perfect_answer_and_the_baseline_beside_it() -> None:
    t = target(records=2)
    truth = [[(1, 2, 3, 4), (5, 6, 7)]]
    found = figures([t], truth, [answer(t, [1, 2, 3, 5, 6], [(5, 6), (1, 2, 3)])])
    for name in (*RECORD_FIGURES, *TARGET_FIGURES):
        assert found[name].value == 1
        assert found[name].n["answered"] == 1
        assert found[name + BASELINE].n["answered"] == 0
        assert found[name + BASELINE].value == (0.5 if name == "token_auc" else 0)
        assert "unanswered" in found[name + BASELINE].note
    assert found["token_recall"].n == {"targets": 1, "records": 2, "answered": 1, "units": 2}


def test_the_last_token_carries_no_gradient_and_may_be_guessed_or_not() -> None:
    t = target()
    for guess in ((1, 2, 3), (1, 2, 3, 4)):
        found = figures([t], [[(1, 2, 3, 4)]], [answer(t, [1, 2, 3], [guess])])
        assert found["exact"].value == found["exact_order"].value == 1
        assert found["token_recall"].value == 1
    claimed = figures([t], [[(1, 2, 3, 4)]], [answer(t, [1, 2, 3, 4])])
    assert claimed["token_precision"].value == 0.75
    # a token that also stands earlier does carry gradient
    assert figures([t], [[(4, 2, 3, 4)]], [answer(t, [4])])["token_recall"].value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("claims", "guess", "score"), [([], (1, 2, 3), -1), ([7], (7, 1, 2, 3), 99), ([7], (1, 2, 3), 3.5)]
)
def test_what_stands_in_front_of_every_record_is_worth_nothing(
    claims: list[int], guess: tuple[int, ...], score: float
) -> None:
    """An answer with the BOS, here 7, and one without are graded alike: as if the vocabulary did not have it."""
    t, scores = target(), np.linspace(0, 1, VOCABULARY)
    scores[[1, 2, 3, 9, 7]] = 4, 3, 2, 5, score
    made = [answer(t, [1, 2, 9, *claims], [guess], scores)]
    sheet = grade([t], [[(1, 2, 3, 4)]], made, [], decode, (7,)).sheet
    found = {row.name: row.value for row in games.leakage(sheet).leakage}
    assert found["token_precision"] == found["token_recall"] == pytest.approx(2 / 3)
    assert found["token_auc"] == pytest.approx(1 - 3 / (3 * 36))  # 3 true tokens, 36 others, one of them above all
    assert found["exact_order"] == found["rouge_l"] == 1


def test_a_bos_alone_is_no_reconstruction() -> None:
    t, bos = target(), 7
    found = grade([t], [[(1, 2, 3)]], [answer(t, [bos], [(bos,)])], [answer(t, [bos], [(bos,)])], decode, (bos,)).sheet
    assert {row.value for row in games.leakage(found).leakage if "auc" not in row.name} == {0.0}


def test_precision_recall_and_ranking_by_hand() -> None:
    t = target(records=2)
    truth = [[(1, 2, 3, 0), (3, 4, 5, 6, 0)]]  # 1 2 3 and 3 4 5 6 carry gradient: 6 distinct tokens
    scores = np.zeros(VOCABULARY)
    scores[[1, 2, 3, 9]] = 4, 3, 2, 1
    found = figures([t], truth, [answer(t, [1, 2, 3, 9], scores=scores)])
    assert found["token_precision"].value == 3 / 4
    assert found["token_recall"].value == pytest.approx((1 + 1 / 4) / 2)
    # 6 true and 34 other tokens: 3 beat all others, 3 tie with 33 zeros and lose to one
    assert found["token_auc"].value == pytest.approx((3 * 34 + 3 * 33 / 2) / (6 * 34))
    assert found["rouge_l"].value == 0


@given(
    scores=st.lists(st.integers(-3, 3), min_size=6, max_size=20),
    true=st.sets(st.integers(0, 5), min_size=1, max_size=5),
)
@settings(deadline=None)
def test_ranking_is_the_auc(scores: list[int], true: set[int]) -> None:
    from sklearn.metrics import roc_auc_score

    t = target()
    a = Reconstruction(t, np.array(scores, float), np.array([], np.int64), (), exact=False)
    found = figures([t], [[(*sorted(true), 0)]], [a])
    labels = np.isin(np.arange(len(scores)), list(true))
    assert found["token_auc"].value == pytest.approx(roc_auc_score(labels, scores))
    assert found["token_precision"].value == 0


def test_a_missing_answer_is_a_failure_not_a_gap() -> None:
    targets = [target(0, f"silo-{i}") for i in range(4)]
    truth = [[(i, i + 1, i + 2)] for i in range(4)]
    given_ = [answer(targets[2], [2, 3], [(2, 3)])]
    found = figures(targets, truth, given_)
    for name in ("token_precision", "token_recall", "exact", "exact_order", "rouge_1", "rouge_2", "rouge_l"):
        assert found[name].value == 0.25
    assert found["token_auc"].value == pytest.approx((3 * 0.5 + 1) / 4)
    assert found["exact"].note == "3 of 4 targets unanswered: failures"


def test_rouge_by_hand() -> None:
    rouge = Rouge()
    # the cat sat / the cat ran fast: unigrams 2 of 3 and of 4; bigrams 1 of 2 and of 3; longest 2
    one, two, longest = rouge.f1("the cat sat", "the cat ran fast")
    assert one == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert two == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert longest == pytest.approx(one)
    assert rouge.f1("running", "runs") == (0, 0, 0)  # no stemming
    assert rouge.f1("a b c d", "d c b a")[2] == pytest.approx(1 / 4)
    assert rouge.f1("a", "") == (0, 0, 0)


def test_one_guess_serves_one_record() -> None:
    """A single guess repeated for every record would score all of them with replacement."""
    t = target(records=3)
    truth = [[(1, 2, 3, 0), (1, 2, 4, 0), (1, 2, 5, 0)]]
    found = figures([t], truth, [answer(t, [1, 2, 3], [(1, 2, 3)])])
    assert found["exact"].value == pytest.approx(1 / 3)
    assert found["rouge_1"].value == pytest.approx(1 / 3)


def test_assignment_is_the_best_one() -> None:
    truth = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    assert assign(truth, [(7, 8, 9), (1, 2, 3), (4, 5, 6)]) == [1, 2, 0]
    assert assign(truth, [(4, 5, 9)]) == [None, 0, None]
    assert assign(truth, []) == [None, None, None]
    # the same tokens in both guesses: order decides, and the exact one goes to its record
    assert assign([(1, 2, 3), (3, 2, 1)], [(3, 2, 1), (1, 2, 3)]) == [1, 0]


@given(
    truth=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), min_size=1, max_size=4),
    guesses=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), max_size=4),
)
@settings(deadline=None)
def test_assignment_against_all_others(truth: list[list[int]], guesses: list[list[int]]) -> None:
    import itertools

    def worth(a: list[int], b: list[int]) -> float:
        return sum(overlap_f1(grams(a, n), grams(b, n)) for n in (1, 2)) + (a == b)

    chosen = assign(truth, guesses)
    used = [g for g in chosen if g is not None]
    assert len(set(used)) == len(used) == min(len(truth), len(guesses))
    found = sum(worth(truth[i], guesses[g]) for i, g in enumerate(chosen) if g is not None)
    size = min(len(truth), len(guesses))
    best = max(
        sum(worth(truth[i], guesses[g]) for i, g in zip(rows, columns, strict=True))
        for rows in itertools.combinations(range(len(truth)), size)
        for columns in itertools.permutations(range(len(guesses)), size)
    )
    assert found == pytest.approx(best)


def test_grams_are_multisets() -> None:
    assert overlap_f1(grams((1, 1, 2), 1), grams((1, 2, 2), 1)) == pytest.approx(4 / 6)
    assert overlap_f1(grams((1,), 2), grams((2,), 2)) == 0
    assert overlap_f1(grams((1, 2, 1, 2), 2), grams((1, 2), 2)) == pytest.approx(2 / 4)


def test_units_are_records_and_groups_of_rounds() -> None:
    targets = [target(r, f"silo-{s}", 2) for r in range(3) for s in range(2)]
    truth = [[(s, s + 2, 9), (s, s + 4, 9)] for _ in range(3) for s in range(2)]
    answers = [answer(t, [0, 2]) for t in targets]
    found = figures(targets, truth, answers)
    assert found["token_recall"].n == {"targets": 6, "records": 12, "answered": 6, "units": 4}
    assert found["token_precision"].n["units"] == 2
    once = figures(targets[:2], truth[:2], answers[:2])
    for name in ("token_recall", "token_precision"):
        assert found[name].value == once[name].value
        assert (found[name].low, found[name].high) == pytest.approx((once[name].low, once[name].high))


def test_order_of_targets_and_answers_does_not_matter() -> None:
    targets = [target(r, f"silo-{s}") for r in range(2) for s in range(3)]
    truth: list[list[Sequence[int]]] = [[(s, r + 10, 30)] for r in range(2) for s in range(3)]
    answers = [answer(t, [i]) for i, t in enumerate(targets)]
    one = grade(targets, truth, answers, [], decode)
    two = grade(targets[::-1], truth[::-1], answers[1:] + answers[:1], [], decode)
    assert one.sheet.to_json() == two.sheet.to_json()
    assert one.details == two.details


def test_many_single_records_have_narrow_intervals() -> None:
    targets = [target(0, f"silo-{i}") for i in range(60)]
    truth = [[(i % 30, 31 + i % 5, 39)] for i in range(60)]
    answers = [answer(t, [*r[0][:2]], [r[0][:2]]) for t, r in zip(targets, truth, strict=True)]
    found = figures(targets, truth, answers)
    assert found["exact_order"].value == 1
    # 30 different records stand twice each
    assert found["exact_order"].n["units"] == 30
    assert found["exact_order"].low == pytest.approx(0.025 ** (1 / 30))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": target(5)}, "was not asked"),
        ({"target": target(0, "silo-9")}, "was not asked"),
        ({"token_scores": np.full(VOCABULARY, np.nan)}, "NaN"),
        ({"token_scores": np.zeros((2, 2))}, "one score per token"),
        ({"token_scores": np.zeros(2)}, "vocabulary has more"),
        ({"token_set": np.array([VOCABULARY])}, "does not have"),
        ({"token_set": np.array([-1])}, "does not have"),
        ({"sequences": ((1, VOCABULARY),)}, "does not have"),
        ({"sequences": ((1,), (2,))}, "2 sequences for 1 records"),
        ({"sequences": ((1,) * 9000,)}, "more than 8192"),
    ],
)
def test_what_an_attack_did_wrong_is_its_failure(change: dict[str, object], said: str) -> None:
    from dataclasses import replace

    good = answer(target(), [1, 2])
    figures([target()], [[(1, 2, 3)]], [good])
    with pytest.raises(SiloBenchError, match=said):
        grade([target()], [[(1, 2, 3)]], [replace(good, **change)], [], decode)  # type: ignore[arg-type]


def test_a_second_answer_is_refused() -> None:
    good = answer(target(), [1, 2])
    with pytest.raises(SiloBenchError, match="twice"):
        grade([target()], [[(1, 2, 3)]], [good, good], [], decode)


def test_impossible_truth_is_a_programming_error() -> None:
    for targets, truth in (([], []), ([target()], []), ([target()], [[]]), ([target()], [[(1,)]])):
        with pytest.raises(ValueError, match=r"truth|record"):
            grade(targets, truth, [], [], decode)
    with pytest.raises(ValueError, match="twice"):
        grade([target(), target()], [[(1, 2)], [(1, 2)]], [], [], decode)


def test_the_population_baseline_is_one_more_answer() -> None:
    ids = np.array([[1, 2, 3, 4], [1, 2, 5, 6], [1, 7, 8, 9]], np.int32)
    predicted = np.tile(np.array([False, True, True, True]), (3, 1))
    population = Tokens(ids, np.full(3, 4, np.int32), predicted, np.full(3, -1, np.int32))
    t = target(records=2)
    guessed = baselines.no_update([t], population, VOCABULARY)
    found = figures([t], [[(1, 2, 3, 4), (1, 20, 21, 4)]], [], guessed)
    assert (found["token_recall" + BASELINE].value or 0) > 0.3
    assert (found["token_auc" + BASELINE].value or 0) > 0.5
    assert found["exact" + BASELINE].value == 0.5
    assert found["token_recall"].value == 0


def broken_with_replacement(truth: Sequence[Sequence[int]], guesses: Sequence[Sequence[int]]) -> list[int | None]:
    """Published code's mistake: each record takes its best guess, whoever took it before."""
    return [
        max(range(len(guesses)), key=lambda g: overlap_f1(grams(ids, 1), grams(guesses[g], 1))) if guesses else None
        for ids in truth
    ]


def test_matching_with_replacement_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction_grading, "assign", broken_with_replacement)
    with pytest.raises(AssertionError):
        test_one_guess_serves_one_record()
