"""What is printed of names that anybody chose."""

from __future__ import annotations

import pytest

from bench.cli.main import main
from bench.core.shown import lines_shown, shown


def test_whatever_moves_the_cursor_or_the_eye_is_escaped() -> None:
    assert shown("a\x1b[2J\r\n\x9b2J\u202eb\u2028\ud800") == r"a\x1b[2J\r\n\x9b2J\u202eb\u2028\ud800"
    assert shown("naïve ü 漢 — [red]") == "naïve ü 漢 — [red]"
    assert lines_shown("a\n\x07b") == "a\n\\x07b"


def test_a_wrong_word_of_the_command_line_is_named_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--defense", "\x1b[2J\u202efedavg", "--attack", "mia"]) == 2
    err = capsys.readouterr().err
    assert r"\x1b[2J\u202efedavg" in err
    assert len(err.splitlines()) == 1
