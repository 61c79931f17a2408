"""After a run: a table that loses nothing, and a sentence that says no more than the figures do."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.board.report import meaning, render
from bench.board.rows import rows
from bench.spec.result import Claim, Leakage, Organisation, Result, Utility
from bench.store.store import Store
from tests.results_factory import auc, result

ROOT = Path("store")
RELEASED, UPLOAD = ("released adapter, round 2",), ("upload of silo-1, round 2",)


def closed(adversary: str = "server", **changes: Any) -> Result:
    return result(adversary=adversary, status="nothing-opened", leakage=(), reads=(), **changes)


def text(*results: Result) -> str:
    return render(results, ROOT, color=False)


def says(*results: Result) -> str:
    return meaning(rows(results))


def line_of(report: str, *words: str) -> str:
    (found,) = [line for line in report.split("\n") if all(word in line.split() for word in words)]
    return found


def test_organisations_stand_with_their_sizes_on_one_line_and_as_text() -> None:
    named = (("silo-0", "Klinik\x1b[31m <b>Nord|*", 160), ("silo-1", "x" * 300, 20))
    found = tuple(Organisation(silo=silo, name=name, records=size) for silo, name, size in named)
    (line,) = [line for line in text(result(organisations=found)).split("\n") if line.startswith("organisations: ")]
    assert line.startswith("organisations: Klinik [31m <b>Nord|* (silo-0, 160 records), xxx")
    assert len(line) < 300
    assert "organisations" not in text(result())
    many = tuple(Organisation(silo=f"silo-{k}", name=f"n{k}", records=2) for k in range(40))
    assert "n11 (silo-11, 2 records) and 28 more\n" in text(result(organisations=many))


# -- the table -----------------------------------------------------------------------------------------------------


def test_a_run_is_shown_whole() -> None:
    figures = (auc(0.93, 0.89, 0.962), Leakage(name="auc:baseline", value=0.52))
    claim = Claim(epsilon=8.0, delta=0.001, unit="record")
    one = result(leakage=figures, claim=claim)
    report = text(one, closed("server"))
    assert f"\nrun: {one.run}\n" in report
    assert report.split("\n")[0] == "fedavg on reviews (quick), seed 0"
    cells = [cell.strip() for cell in line_of(report, "outsider", "mia").split("|")]
    assert cells == [
        "outsider",
        "mia",
        "released adapter, round 2",
        "AUC 0.930 [0.890, 0.962]",
        "90/90",
        "0.520",
        "8 (δ 0.001, record)",
        "ok",
    ]
    cells = [cell.strip() for cell in line_of(report, "server", "mia").split("|")]
    assert cells == ["server", "mia", "nothing", "—", "", "", "∞", "nothing-opened"]
    assert "utility: perplexity 20.12 [19.00, 21.25] (base 28.31)\n" in report
    assert "cost: 1.84 MB up and 3.69 MB down per silo and round; training 50.0 s, channel 0.75 s\n" in report
    assert report.split("\n")[-1] == f"Results: {ROOT / 'results'} (2); 'bench verify' recomputes them."


def test_it_says_what_so_many_records_could_have_shown() -> None:
    # by hand: sd_0 = sqrt(181 / (12 * 8100)) = .0432; at A = .62 Hanley and McNeil's sd = .0416, so that
    # 1.960 * .0432 + .8416 * .0416 = .120
    assert "power: with 90/90 records an AUC under 0.62 is hardly told from guessing (80%)" in text(result())


def test_it_says_where_the_private_details_lie(tmp_path: Path) -> None:
    store = Store(tmp_path)
    results = [
        result(attack="inversion", scores_sha256=store.save_scores("{}", "texts")),
        result(scores_sha256="0" * 64),
    ]
    last = render(results, tmp_path).split("\n")[-1]
    assert last == f"Private, with the records' texts and what was guessed: {tmp_path / 'details'} (1)."
    assert "Private" not in render(results[1:], tmp_path)


def test_it_is_plain_text_where_nobody_watches_and_has_no_trailing_blanks() -> None:
    report = text(result(), closed())
    assert "\x1b" not in report
    assert all(line == line.rstrip() for line in report.split("\n"))
    assert max(len(line) for line in report.split("\n")[:6]) <= 132


def test_on_a_terminal_it_fits_the_width() -> None:
    report = render([result(note="x" * 300, status="error"), closed()], ROOT, color=True, width=80)
    assert "\x1b[" in report
    assert "nothing-opened" in report or "opened" in report


def test_adversaries_stand_from_the_least_able_to_the_most() -> None:
    names = ["all-but-one", "silo", "server+silo", "user", "server", "outsider"]
    report = text(*(result(adversary=name) for name in names))
    table = [line.split()[0] for line in report.split("\n") if "0.930" in line and "|" in line]
    assert table == ["user", "outsider", "silo", "server", "server+silo", "all-but-one"]


def test_errors_are_shown_with_their_reason_and_counted() -> None:
    report = text(result(), result(adversary="silo", status="error", leakage=(), note="ValueError: singular\nmatrix"))
    assert "error (silo, mia, seed 0): ValueError: singular matrix" in report
    assert line_of(report, "silo", "mia").endswith("| error")
    assert "Of 2 results 1 could not be had, and nothing follows for them." in report


def test_several_seeds_are_one_row_with_an_interval_over_runs() -> None:
    report = text(*(result(seed=i, leakage=(auc(v, 0.1, 0.9),)) for i, v in enumerate([0.8, 0.9])))
    assert "fedavg on reviews (quick), seeds 0, 1" in report
    # 0.85 -+ 12.706 * 0.0707 / sqrt(2), cut at 0 and 1
    assert "AUC 0.850 [0.215, 1.000]" in line_of(report, "outsider", "mia")
    assert "ok (2)" in report


def test_defenses_have_a_block_each() -> None:
    report = text(*(result(defense=name, adversary=who) for name in ("a", "b") for who in ("user", "silo")))
    assert report.count("utility:") == 2
    assert [line for line in report.split("\n") if " on reviews" in line] == [
        "a on reviews (quick), seed 0",
        "b on reviews (quick), seed 0",
    ]


def test_an_attack_that_knew_no_candidate_is_marked() -> None:
    marked = text(result(attack="guess", knows="population"), result(attack="mia"))
    assert line_of(marked, "outsider", "guess").split("|")[1].strip() == "guess (population)"
    assert "mia (" not in marked


def test_text_from_results_is_no_markup() -> None:
    hostile = "[bold red]x[/] \x1b[31m"
    report = text(result(reads=(hostile,), attack="mia", note=hostile, status="thinned"))
    assert "[bold red]x[/]" in report
    assert "\x1b" not in report


def test_a_terminal_of_another_encoding_gets_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    report = render([result(), closed()], ROOT)
    assert report.isascii()
    assert "infinite" in report


def test_no_results_is_said() -> None:
    assert render([], ROOT) == "No results."


@pytest.mark.parametrize("cost", [{}, {"phases": None}, {"peak_bytes": "much", "tokens_per_second": None}])
def test_a_cost_that_was_not_measured_is_left_out(cost: dict[str, Any]) -> None:
    assert "cost:" not in text(result(cost=cost, utility=()))


# -- the sentence --------------------------------------------------------------------------------------------------


def test_what_leaks_from_the_release_is_said_of_its_holder() -> None:
    assert says(result(adversary="user"), result(), result(adversary="silo")) == (
        "Anyone who can query the released model tells members from non-members with AUC 0.930 [0.890, 0.962] "
        "(n=90/90)."
    )


def test_a_closed_server_is_no_comfort_where_others_read() -> None:
    assert says(result(), closed("server")) == (
        "Against the server nothing opened here, but anyone who holds the released adapter tells members from "
        "non-members with AUC 0.930 [0.890, 0.962] (n=90/90); hiding uploads does not change that."
    )


def test_a_server_that_read_only_the_release_is_said_to() -> None:
    sentence = says(result(reads=RELEASED), result(adversary="server", reads=RELEASED))
    assert sentence.startswith(
        "The server read nothing but what is released, yet anyone who holds the released adapter"
    )
    opened = says(result(reads=RELEASED), result(adversary="server", reads=(*RELEASED, *UPLOAD)))
    assert "nothing but what is released" not in opened


def test_the_least_able_adversary_that_does_as_well_is_named() -> None:
    weak = result(adversary="user", leakage=(auc(0.7, 0.6, 0.8),))
    strong = result(adversary="server", leakage=(auc(0.95, 0.9, 0.98),), reads=UPLOAD)
    equal = result(adversary="silo", leakage=(auc(0.92, 0.85, 0.97),))
    assert says(weak, strong).startswith("The server tells members")
    assert says(weak, equal, strong).startswith("Another silo tells members")


def test_guessing_is_not_called_protection() -> None:
    sentence = says(result(leakage=(auc(0.53, 0.44, 0.62),)), result(adversary="user", leakage=(auc(0.5, 0.4, 0.6),)))
    assert sentence == (
        "No adversary that was tried tells members from non-members better than guessing can explain (the largest AUC "
        "is 0.530 [0.440, 0.620], of anyone who holds the released adapter): that is what these attacks found, not a "
        "proof of privacy."
    )


def test_an_auc_without_an_interval_above_one_half_is_not_called_telling() -> None:
    assert "tells members from non-members with" not in says(result(leakage=(auc(0.9),)))
    assert "tells members from non-members with" not in says(result(leakage=(auc(0.6, 0.5, 0.7),)))


def test_nothing_opened_anywhere_is_no_proof() -> None:
    assert says(closed("server"), closed("outsider"), closed("silo")) == (
        "Against anyone who holds the released adapter, another silo or the server nothing opened here: that is what "
        "was found, not a proof of security."
    )


def test_an_adversary_that_opened_something_for_one_attack_is_not_closed() -> None:
    sentence = says(closed("server", attack="inversion"), result(adversary="server", reads=UPLOAD))
    assert "nothing opened" not in sentence


def test_reconstruction_is_said_beside_its_baseline() -> None:
    figures = (
        Leakage(name="token_recall", value=0.95, low=0.9, high=0.98),
        Leakage(name="token_precision", value=0.9),
        Leakage(name="token_recall:baseline", value=0.2),
    )
    sentence = says(result(attack="inversion", adversary="server", leakage=figures))
    assert sentence == (
        "The server recovers 0.950 [0.900, 0.980] of the tokens of a training batch; 0.900 of the tokens that it "
        "names are right; a baseline that sees no update recovers 0.200."
    )


def test_a_model_that_did_not_learn_makes_low_leakage_worthless() -> None:
    weak = result(
        leakage=(auc(0.5, 0.4, 0.6),), learned=False, utility=(Utility(name="perplexity", value=30, base=28),)
    )
    assert says(weak).endswith(
        "The model is no better than the base model, so low leakage here says nothing for the defense."
    )
    assert "did not learn" in text(weak)


def test_a_void_result_gives_no_figure_and_no_claim() -> None:
    sentence = says(result(status="void", leakage=(auc(0.99, 0.98, 1.0),), note="void: baseline"))
    assert sentence == "Of 1 results 1 could not be had, and nothing follows for them."
    assert "0.99" not in text(result(status="void", leakage=(auc(0.99, 0.98, 1.0),)))
