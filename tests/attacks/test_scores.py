"""The membership scores, against values worked by hand from their definitions."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from attacks import scores
from bench.core.tokens import TokenStats

LN2 = np.log(2)
#: one row: probabilities 1/2, 1/4, 1/8, 1/8
P = np.log(np.array([0.5, 0.25, 0.125, 0.125]))
#: mean of log p under p is -1.75 ln 2, its variance (3.75 - 1.75^2) ln^2 2 = 0.6875 ln^2 2
Z = [(-n + 1.75) / np.sqrt(0.6875) for n in (1, 2, 3)]


def rows(n: int) -> np.ndarray:
    return np.tile(P, (n, 1))


def test_loss_is_the_mean_log_probability() -> None:
    assert scores.loss(rows(4), np.array([0, 1, 2, 0])) == pytest.approx(-(1 + 2 + 3 + 1) / 4 * LN2)


def test_loss_normalises_the_logits() -> None:
    assert scores.loss(rows(2) + 700.0, np.array([0, 1])) == pytest.approx(-1.5 * LN2)


def test_zlib_divides_by_the_compressed_bytes() -> None:
    text = "aaaa aaaa aaaa bé"
    expected = -1.5 * LN2 / len(zlib.compress(text.encode()))
    assert scores.zlib(rows(2), np.array([0, 1]), text) == pytest.approx(expected)
    assert scores.zlib(rows(2), np.array([0, 1]), "") == pytest.approx(-1.5 * LN2 / 8)


def test_min_k_takes_the_least_likely_tokens() -> None:
    tokens = np.array([0, 0, 1, 2, 0])
    assert scores.min_k(rows(5), tokens, 0.4) == pytest.approx(-(3 + 2) / 2 * LN2)
    assert scores.min_k(rows(5), tokens, 0.59) == pytest.approx(-(3 + 2) / 2 * LN2)
    assert scores.min_k(rows(5), tokens, 0.6) == pytest.approx(-(3 + 2 + 1) / 3 * LN2)


def test_min_k_that_rounds_to_zero_takes_one_token() -> None:
    assert scores.min_k(rows(5), np.array([0, 1, 2, 0, 0]), 0.01) == pytest.approx(-3 * LN2)
    assert scores.min_k(rows(1), np.array([1]), 0.1) == pytest.approx(-2 * LN2)
    assert scores.min_k_plus_plus(rows(1), np.array([1]), 0.1) == pytest.approx(Z[1])


def test_min_k_counts_as_written_not_as_stored() -> None:
    """0.29 x 100 is 28.999999999999996 in floating point."""
    tokens = np.array([1] * 29 + [0] * 71)
    values = np.linspace(-5, -1, 100)
    assert scores.lowest_mean(values, 0.29) == pytest.approx(values[:29].mean())
    assert scores.min_k(rows(100), tokens, 0.29) == pytest.approx(-2 * LN2)


def test_min_k_plus_plus_standardises_over_the_vocabulary() -> None:
    tokens = np.array([0, 1, 2, 2])
    assert scores.min_k_plus_plus(rows(4), tokens, 0.25) == pytest.approx(Z[2])
    assert scores.min_k_plus_plus(rows(4), tokens, 1.0) == pytest.approx((Z[0] + Z[1] + 2 * Z[2]) / 4)


def test_ties_and_constants() -> None:
    same = np.zeros(7, dtype=int)
    for k in (0.1, 0.5, 1.0):
        assert scores.min_k(rows(7), same, k) == pytest.approx(-LN2)
        assert scores.min_k_plus_plus(rows(7), same, k) == pytest.approx(Z[0])


def test_a_flat_distribution_standardises_to_zero() -> None:
    assert scores.min_k_plus_plus(np.zeros((3, 1000)), np.array([0, 5, 999]), 0.5) == 0.0
    assert scores.loss(np.zeros((3, 1000)), np.array([0, 5, 999])) == pytest.approx(-np.log(1000))


def test_impossible_tokens_do_not_spoil_the_moments() -> None:
    logits = np.concatenate([rows(3), np.full((3, 2), -np.inf)], axis=1)
    assert scores.min_k_plus_plus(logits, np.array([0, 1, 2]), 1.0) == pytest.approx(np.mean(Z))
    assert scores.loss(logits, np.array([0, 1, 4])) == -np.inf


@pytest.mark.parametrize("k", [0.0, -0.1, 1.01, float("nan")])
def test_k_must_be_a_fraction(k: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        scores.min_k(rows(3), np.array([0, 1, 2]), k)


@pytest.mark.parametrize(
    ("logits", "tokens"),
    [
        (rows(0), np.array([], dtype=int)),
        (rows(2), np.array([0])),
        (rows(1), np.array([4])),
        (rows(1), np.array([-1])),
        (rows(1), np.array([0.0])),
        (P, np.array([0])),
        (np.full((1, 4), np.nan), np.array([0])),
        (np.array([[0.0, np.inf]]), np.array([0])),
        (np.full((1, 4), -np.inf), np.array([0])),
    ],
)
def test_malformed_input_is_refused(logits: np.ndarray, tokens: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected|needs|must"):
        scores.loss(logits, tokens)


LOGITS = arrays(np.float64, (6, 9), elements=st.floats(-20, 20))
IDS = arrays(np.int64, (6,), elements=st.integers(0, 8))
K = st.floats(0.01, 1.0)


@given(LOGITS, IDS, K, st.floats(-50, 50))
def test_adding_a_constant_to_the_logits_changes_nothing(
    logits: np.ndarray, ids: np.ndarray, k: float, shift: float
) -> None:
    assert scores.loss(logits + shift, ids) == pytest.approx(scores.loss(logits, ids), abs=1e-9)
    assert scores.min_k(logits + shift, ids, k) == pytest.approx(scores.min_k(logits, ids, k), abs=1e-9)


@given(LOGITS, IDS, st.randoms(use_true_random=False))
def test_the_order_of_tokens_changes_nothing(logits: np.ndarray, ids: np.ndarray, random: object) -> None:
    order = np.array(sorted(range(6), key=lambda _: random.random()))  # type: ignore[attr-defined]
    for one, other in zip(
        (scores.loss(logits, ids), scores.min_k(logits, ids, 0.5), scores.min_k_plus_plus(logits, ids, 0.5)),
        (
            scores.loss(logits[order], ids[order]),
            scores.min_k(logits[order], ids[order], 0.5),
            scores.min_k_plus_plus(logits[order], ids[order], 0.5),
        ),
        strict=True,
    ):
        assert one == pytest.approx(other, abs=1e-9)


@given(LOGITS, IDS, K, K)
def test_min_k_grows_with_k_up_to_the_loss(logits: np.ndarray, ids: np.ndarray, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert scores.min_k(logits, ids, low) <= scores.min_k(logits, ids, high) + 1e-9
    assert scores.min_k(logits, ids, 1.0) == pytest.approx(scores.loss(logits, ids))


@given(LOGITS, IDS, st.integers(0, 5))
def test_a_likelier_token_never_lowers_a_score(logits: np.ndarray, ids: np.ndarray, at: int) -> None:
    """Higher = more likely a member: a sign turned round would fail here."""
    better = ids.copy()
    better[at] = int(np.argmax(logits[at]))
    for score in (
        scores.loss,
        lambda x, y: scores.zlib(x, y, "text"),
        lambda x, y: scores.min_k(x, y, 0.4),
        lambda x, y: scores.min_k_plus_plus(x, y, 0.4),
    ):
        assert score(logits, better) >= score(logits, ids) - 1e-9


def stats_of(logits: list[np.ndarray], tokens: list[np.ndarray], whole: bool = True) -> TokenStats:
    """Statistics as a forward pass gives them: position 0 predicts nothing, padding on the right, float32."""
    width = 1 + max(len(ids) for ids in tokens)
    predicted = np.zeros((len(tokens), width), dtype=bool)
    parts = [np.zeros((len(tokens), width), dtype=np.float32) for _ in range(3)]
    for row, (scores_, ids) in enumerate(zip(logits, tokens, strict=True)):
        predicted[row, 1 : 1 + len(ids)] = True
        for part, values in zip(parts, scores.token_statistics(scores_, ids), strict=True):
            part[row, 1 : 1 + len(ids)] = values
    first = np.zeros((len(tokens), width), dtype=bool)
    for row, (scores_, ids) in enumerate(zip(logits, tokens, strict=True)):
        first[row, 1 : 1 + len(ids)] = ids == scores_.argmax(axis=1)
    moments = parts[1:] if whole else (None, None)
    return TokenStats(parts[0], predicted, *moments, first=first if whole else None)


@given(st.integers(0, 2**32 - 1))
def test_one_forward_pass_gives_the_same_scores_as_the_logits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 30, size=4)
    logits = [rng.normal(0, 3, (n, 50)) for n in lengths]
    tokens = [rng.integers(0, 50, n) for n in lengths]
    texts = ["a", "some text", "é" * 40, ""]
    found, missing = scores.from_stats(stats_of(logits, tokens), texts, (0.1, 0.25))
    assert missing == {}
    for i, (x, y, text) in enumerate(zip(logits, tokens, texts, strict=True)):
        expected = {
            "loss": scores.loss(x, y),
            "zlib": scores.zlib(x, y, text),
            "accuracy": scores.accuracy(x, y),
            "min-10%": scores.min_k(x, y, 0.1),
            "min-25%": scores.min_k(x, y, 0.25),
            "min-10%++": scores.min_k_plus_plus(x, y, 0.1),
            "min-25%++": scores.min_k_plus_plus(x, y, 0.25),
        }
        assert {name: values[i] for name, values in found.items()} == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_without_the_distribution_min_k_plus_plus_is_missing_with_the_reason() -> None:
    stats = stats_of([rows(2)], [np.array([0, 1])], whole=False)
    found, missing = scores.from_stats(stats, ["x"], (0.2,))
    assert set(found) == {"loss", "zlib", "min-20%"}
    assert set(missing) == {"min-20%++", "accuracy"}
    assert "distribution" in missing["min-20%++"]
    assert "first choice" in missing["accuracy"]


def test_accuracy_counts_first_choices() -> None:
    assert scores.accuracy(rows(4), np.array([0, 1, 0, 3])) == 0.5
    assert scores.accuracy(np.zeros((3, 5)), np.array([0, 4, 2])) == 1.0, "tied with the likeliest is as good as first"
    assert scores.accuracy(rows(1), np.array([2])) == 0.0


#: what tuning adds to four tokens, in units of ln 2: +1, -1, 0, +2, by raising or lowering one token's probability
BASE = np.log(np.array([[0.25, 0.75], [0.5, 0.5], [0.5, 0.5], [0.1, 0.9]]))
TUNED = np.log(np.array([[0.5, 0.5], [0.25, 0.75], [0.5, 0.5], [0.4, 0.6]]))
ALL = np.zeros(4, dtype=int)


def test_the_error_zone_weighs_what_tuning_changed_where_the_tuned_model_errs() -> None:
    """Tokens 1 and 3 are errors: -1 and +2. Tokens 0 and 2 tie with the first choice."""
    assert scores.ez(TUNED, BASE, ALL) == pytest.approx(2 / (2 + 1))
    assert scores.ez(TUNED[1:2], BASE[1:2], ALL[:1]) == 0.0
    assert scores.ez(BASE, BASE, ALL) == 0.5, "nothing changed"


def test_the_error_zone_keeps_its_strongest_members() -> None:
    """As published, a record without a loss in the zone, or without a zone, scores 0: below every other."""
    known = np.log(np.array([[0.9, 0.1]] * 4))
    assert scores.ez(known, BASE, ALL) == 2.0, "no error left: all four gained"
    assert scores.ez(TUNED[3:], BASE[3:], ALL[:1]) == 2.0, "an error, and no loss"
    slight = np.array([[5.0, 0.0], *BASE[1:]])
    assert scores.ez(slight, BASE, ALL) == 2.0
    mixed = np.array([*known[:3], np.log([0.05, 0.95])])
    assert scores.ez(mixed, BASE, ALL) == 0.0, "its one error lost: gains elsewhere are not the zone's"


def test_a_record_without_errors_is_ranked_by_all_its_tokens() -> None:
    before = np.log(np.array([[0.95, 0.05], [0.6, 0.4]]))
    after = np.log(np.array([[0.90, 0.10], [0.9, 0.1]]))
    up, down = np.log(0.9 / 0.6), np.log(0.95 / 0.9)
    assert scores.ez(after, before, ALL[:2]) == pytest.approx(1 + up / (up + down))


@given(st.integers(0, 2**32 - 1))
def test_the_error_zone_orders_as_published_where_that_is_not_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, published = [], []
    for _ in range(6):
        gain, first = rng.normal(0, 1, 12), rng.random(12) < 0.5
        up = sum(g for g, f in zip(gain, first, strict=True) if g > 0 and not f)
        down = -sum(g for g, f in zip(gain, first, strict=True) if g < 0 and not f)
        if down > 0:
            found.append(scores.error_zone(gain, first))
            published.append(up / down)
    assert np.array_equal(np.argsort(found, kind="stable"), np.argsort(published, kind="stable"))
    assert all(0 <= value < 1 for value in found)


def test_impossible_tokens_count_without_spoiling_the_zone() -> None:
    never = np.array([[0.0, -np.inf], [1.0, 0.0]])
    ids = np.array([1, 1])
    assert scores.ez(never, never, ids) == 0.5
    assert scores.ez(never, np.array([[0.0, -1.0], [1.0, 0.0]]), ids) == 0.0
    assert scores.ez(np.array([[0.0, -1.0], [1.0, 0.0]]), never, ids) == 2.0


def test_windows_vote_by_the_sign_of_their_sum() -> None:
    """Gains +1, -1, 0, +2: of length 2 the sums are 0, -1, 2, of length 3 they are 0 and 1."""
    assert scores.windows(TUNED, BASE, ALL, (2,)) == pytest.approx(1 / 3)
    assert scores.windows(TUNED, BASE, ALL, (2, 3)) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert scores.windows(TUNED, BASE, ALL, (1,)) == pytest.approx(2 / 4)


def test_windows_by_their_mean_and_best() -> None:
    assert scores.windows(TUNED, BASE, ALL, (2,), "mean") == pytest.approx((0 - 0.5 + 1) / 3 * LN2)
    assert scores.windows(TUNED, BASE, ALL, (2,), "best") == pytest.approx(LN2)
    assert scores.windows(TUNED, BASE, ALL, (1, 2), "best") == pytest.approx((2 + 1) / 2 * LN2)


@pytest.mark.parametrize("vote", ["sign", "mean", "best"])
def test_a_window_longer_than_the_record_is_cut_to_it(vote: scores.Vote) -> None:
    whole = scores.windows(TUNED, BASE, ALL, (4,), vote)
    assert scores.windows(TUNED, BASE, ALL, (40,), vote) == whole
    assert scores.windows(TUNED[:1], BASE[:1], ALL[:1], (2, 40), vote) == pytest.approx(1 if vote == "sign" else LN2)
    assert scores.windows(BASE, BASE, ALL, vote=vote) == 0.0


def test_the_published_grid_of_windows() -> None:
    """round(2 (40/2)^(k/9)): 2, 2.79, 3.89, 5.43, 7.57, 10.56, 14.74, 20.56, 28.68, 40."""
    assert scores.WINDOWS == (2, 3, 4, 5, 8, 11, 15, 21, 29, 40)


@pytest.mark.parametrize("lengths", [(), (0,), (2, -1)])
def test_windows_need_a_length(lengths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="window lengths"):
        scores.windows(TUNED, BASE, ALL, lengths)


def test_pairs_of_different_records_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        scores.gains(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="flag"):
        scores.error_zone(np.zeros(2), np.zeros(3, dtype=bool))
    with pytest.raises(ValueError, match="vote"):
        scores.slide(np.zeros(2), (2,), "loudest")  # type: ignore[arg-type]
    one, other = stats_of([rows(2)], [ALL[:2]]), stats_of([rows(3)], [ALL[:3]])
    with pytest.raises(ValueError, match="same records"):
        scores.from_pair(one, other, (2,))


@given(st.integers(0, 2**32 - 1))
def test_two_forward_passes_give_the_same_paired_scores_as_the_logits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 30, size=4)
    before = [rng.normal(0, 3, (n, 20)) for n in lengths]
    after = [x + rng.normal(0, 1, x.shape) for x in before]
    tokens = [rng.integers(0, 20, n) for n in lengths]
    found, missing = scores.from_pair(stats_of(after, tokens), stats_of(before, tokens), (2, 5))
    assert missing == {}
    for i, (x, b, y) in enumerate(zip(after, before, tokens, strict=True)):
        expected = {
            "ez": scores.ez(x, b, y),
            "wbc": scores.windows(x, b, y, (2, 5)),
            "window-mean": scores.windows(x, b, y, (2, 5), "mean"),
            "window-best": scores.windows(x, b, y, (2, 5), "best"),
        }
        assert {name: values[i] for name, values in found.items()} == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_calibration_subtracts_the_base_model() -> None:
    tuned = {"loss": np.array([-1.0, -2.0]), "zlib": np.array([1.0, 1.0])}
    base = {"loss": np.array([-3.0, -2.0]), "zlib": np.array([0.5, 2.0])}
    found = scores.calibrated(tuned, base)
    assert found["loss-base"].tolist() == [2.0, 0.0]
    assert found["zlib-base"].tolist() == [0.5, -1.0]
