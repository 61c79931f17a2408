"""What a correct DP-SGD shows (``dp_audit``), and that every broken copy (``dp_broken``) is caught."""

from __future__ import annotations

import pytest

from defenses.trainers.dp_sgd import DPSGD, Quantile
from tests.defenses.dp_audit import CHECKS, check_accounting, check_division, check_noise, check_sensitivity
from tests.defenses.dp_broken import BROKEN


def maker(kind: type[DPSGD], **more):
    def make(**options):
        return kind(**{"epsilon": None, **more, **options})

    return make


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_the_trainer_passes(check) -> None:
    check(maker(DPSGD))


@pytest.mark.parametrize("check", [check_sensitivity, check_division], ids=lambda c: c.__name__)
def test_with_gradients_from_opacus_it_passes_too(check) -> None:
    check(maker(DPSGD, gradients="opacus"))


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_with_an_adaptive_clip_it_passes_too(share) -> None:
    """At a rate that leaves the clip where it is; the sum's noise is then 1/(1 - share) times the variance of z."""
    make = maker(DPSGD, quantile=Quantile(0.5, 1e-12, share))
    check_sensitivity(make)
    check_noise(make, 1 / (1 - share))
    check_accounting(make)


@pytest.mark.parametrize("kind", BROKEN, ids=lambda k: k.__name__)
def test_a_broken_copy_is_caught(kind) -> None:
    name, words = BROKEN[kind]
    check = {c.__name__: c for c in CHECKS}[name]
    with pytest.raises(AssertionError, match=words):
        check(maker(kind))
