"""What travels: forms and their headers, supports, grids."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import SiloBenchError
from bench.core.update import MAX_HEADER, Form, Grid, Layout, Update, support_digest

LAYOUT = Layout(("a", "b"), ((2, 3), (4,)))
SUPPORT = np.array([1, 4, 9])


def test_a_grid_s_levels_and_step_by_hand() -> None:
    grid = Grid(bits=8, clip=2.54)
    assert grid.levels == 127
    assert grid.step == pytest.approx(0.02)
    assert Grid(2, 1.0).levels == 1


def test_integers_are_spread_over_the_layout_in_units_of_the_step() -> None:
    form = Form(LAYOUT, Grid(8, 1.27), SUPPORT)
    np.testing.assert_allclose(form.spread(np.array([100, -127, 0])), [0, 1.0, 0, 0, -1.27, 0, 0, 0, 0, 0])
    assert form.count == 3
    assert Form(LAYOUT).count == 10


def test_a_dense_real_update_is_itself() -> None:
    values = np.arange(10, dtype=np.float32)
    np.testing.assert_array_equal(Update(values, LAYOUT).dense(), values)


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_restricting_twice_is_restricting_to_what_both_name(one: set[int], other: set[int]) -> None:
    first, second = (np.array(sorted(s), dtype=np.int64) for s in (one, other))
    values = np.arange(10, dtype=np.float32) + 1
    update = Update(values, LAYOUT).restricted(first).restricted(second)
    assert update.support is not None
    assert update.support.tolist() == sorted(one & other)
    np.testing.assert_array_equal(update.values, values[update.support])
    full = np.zeros(10)
    full[update.support] = values[update.support]
    np.testing.assert_array_equal(update.dense(), full)


@pytest.mark.parametrize("grid", [None, Grid(8, 0.25), Grid(24, 1e-9)])
@pytest.mark.parametrize("support", [None, SUPPORT, np.empty(0, np.int64)])
def test_a_header_is_read_back(grid: Grid | None, support: np.ndarray | None) -> None:
    form = Form(LAYOUT, grid, support)
    assert len(form.header()) < 120
    again = Form.read(form.header(), LAYOUT, support)
    assert (again.grid, again.count) == (grid, form.count)


@pytest.mark.parametrize("support", [None, np.array([1, 4]), np.array([1, 4, 8])])
def test_another_support_than_the_round_s_is_refused(support: np.ndarray | None) -> None:
    with pytest.raises(SiloBenchError, match="other coordinates"):
        Form.read(Form(LAYOUT, None, SUPPORT).header(), LAYOUT, support)


def edited(**changes: object) -> bytes:
    value = json.loads(Form(LAYOUT, Grid(8, 1.0)).header()) | changes
    return json.dumps({k: v for k, v in value.items() if v is not ...}).encode()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff",
        b"[]",
        b"3",
        b"{}",
        b"[" * 5000,
        edited(bits=1),
        edited(bits=63),
        edited(bits=8.0),
        edited(bits=True),
    ]
    + [edited(clip=c) for c in (0, -1, "1", float("nan"), float("inf"), None, ...)]
    + [edited(values=v) for v in (9, -1, "10", None, ...)]
    + [edited(padding="x" * MAX_HEADER)],
)
def test_hostile_headers_are_refused(header: bytes) -> None:
    with pytest.raises(SiloBenchError, match="header"):
        Form.read(header, LAYOUT, None)


@given(st.sets(st.integers(0, 40), max_size=20), st.sets(st.integers(0, 40), max_size=20))
def test_a_support_s_digest_names_its_set(one: set[int], other: set[int]) -> None:
    digests = [support_digest(np.array(sorted(indices), dtype=np.int64)) for indices in (one, other)]
    assert (digests[0] == digests[1]) == (one == other)


def test_a_support_s_digest_by_hand() -> None:
    # coordinates 0 and 9: bits 1000 0000 0100 0000
    assert support_digest(np.array([0, 9])) == hashlib.sha256(b"\x80\x40").hexdigest()[:16]


@pytest.mark.parametrize("indices", [[1, 0], [2, 2], [-1, 3]])
def test_a_support_that_does_not_ascend_is_refused(indices: list[int]) -> None:
    with pytest.raises(SiloBenchError, match="must ascend"):
        support_digest(np.array(indices))
