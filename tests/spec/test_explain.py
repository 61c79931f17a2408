"""Configuration errors as one sentence each."""

from __future__ import annotations

from typing import Any, Literal, Self

import pytest
from pydantic import Field, ValidationError, field_validator, model_validator

from bench.core.errors import UsageError
from bench.spec.config import Config
from bench.spec.explain import explain, keys, nearest_key, nested, unknown_key, validated


class Away(Config):
    round: int = Field(ge=0)


class Local(Config):
    batch: int = Field(8, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"


class Options(Config):
    silos: int = Field(3, ge=2)
    rounds: int = 3
    name: str
    clip: float | None = Field(None, gt=0)
    local: Local = Local()
    shadow: Local | None = None
    away: tuple[Away, ...] = ()
    targets: dict[str, Local] = Field(default_factory=dict)
    level: float | Literal["auto"] | None = "auto"
    parts: tuple[int | Literal["all"], ...] = Field((1,), min_length=1)

    @field_validator("name")
    @classmethod
    def _lower(cls, value: str) -> str:
        if value != value.lower():
            raise ValueError("names are in small letters")
        return value

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.rounds > 9:
            raise AssertionError("there are at most 9 rounds")
        return self


def says(values: dict[str, Any], prefix: str = "") -> str:
    with pytest.raises(UsageError) as caught:
        validated(Options, {"name": "x", **values}, prefix)
    assert caught.value.__suppress_context__  # the sentence alone, without pydantic's own
    return str(caught.value)


def test_what_is_valid_is_the_configuration() -> None:
    assert validated(Options, {"name": "x", "local": {"batch": 2}}, "") == Options(name="x", local=Local(batch=2))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"silos": 1}, "silos=1 is refused: it should be greater than or equal to 2."),
        ({"clip": 0}, "clip=0 is refused: it should be greater than 0."),
        (
            {"silos": "many"},
            "silos=many is refused: it should be a valid integer, unable to parse string as an integer.",
        ),
        ({"clip": float("inf")}, "clip=Infinity is refused: it should be a finite number."),
        ({"local": {"optimizer": "adam"}}, "local.optimizer=adam is refused: it should be 'adamw' or 'sgd'."),
        ({"shadow": {"batch": 0}}, "shadow.batch=0 is refused: it should be greater than or equal to 1."),
        (
            {"away": [{"round": 1}, {"round": -1}]},
            "away.1.round=-1 is refused: it should be greater than or equal to 0.",
        ),
        ({"away": [{}]}, "'away.0.round' has no value and no default: give one with --set away.0.round=VALUE."),
        ({"level": "high"}, "level=high is refused: it should be a valid number or 'auto'."),
        ({"parts": [1, "some"]}, "parts.1=some is refused: it should be a valid integer or 'all'."),
        ({"parts": []}, "parts=[] is refused: it should have at least 1 item, not 0."),
        ({"targets": {"a": {"batch": 0}}}, "targets.a.batch=0 is refused: it should be greater than or equal to 1."),
        ({"name": "Xy"}, "name=Xy is refused: names are in small letters."),
        ({"rounds": 10}, "there are at most 9 rounds."),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_its_bound(values: dict[str, Any], sentence: str) -> None:
    assert says(values) == sentence


def test_a_prefix_stands_before_the_key() -> None:
    assert says({"silos": 1}, "pool") == "pool.silos=1 is refused: it should be greater than or equal to 2."
    with pytest.raises(UsageError) as caught:
        validated(Options, {}, "dp")
    assert str(caught.value) == "'dp.name' has no value and no default: give one with --set dp.name=VALUE."


def test_only_the_first_of_several_wrong_things_is_told() -> None:
    assert says({"silos": 1, "clip": 0, "more": 1}).startswith("silos=1 ")


@pytest.mark.parametrize(
    ("value", "shown"),
    [("a" * 60, "a" * 60), ("a" * 61, "a" * 57 + "..."), ([1, {"b": None}], '[1, {"b": null}]'), ({1}, '"{1}"')],
)
def test_a_long_value_is_shown_in_short_and_any_value_somehow(value: object, shown: str) -> None:
    assert says({"silos": value}).startswith(f"silos={shown} is refused: it should be a valid integer")


def test_a_validator_s_own_sentence_is_ended_once() -> None:
    class Asks(Config):
        x: int = 0

        @field_validator("x")
        @classmethod
        def _check(cls, value: int) -> int:
            raise ValueError({1: "no.", 2: "why?", 3: "no!"}[value])

    for value, text in ((1, "no."), (2, "why?"), (3, "no!")):
        with pytest.raises(ValidationError) as caught:
            Asks(x=value)
        assert explain(caught.value, Asks) == f"x={value} is refused: {text}"


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("federation.lr", ["federation.local.lr"]),  # nested deeper
        ("rounds", ["federation.rounds"]),  # without its section
        ("clip", ["dp-sgd.clip", "secagg.clip"]),  # several have it
        ("pool.rounds", ["federation.rounds"]),  # in another section, and nothing is written like it
        ("federation.round", ["federation.rounds"]),  # mistyped
        ("federation.lokal.lr", ["federation.local.lr"]),
        ("zzzz", []),
    ],
)
def test_the_key_that_is_meant_is_found_by_its_last_word_or_its_letters(key: str, near: list[str]) -> None:
    known = ["federation.rounds", "federation.local.lr", "federation.local.batch", "dp-sgd.clip", "secagg.clip"]
    assert nearest_key(key, known) == near


# -- keys ----------------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_told_the_nearest_one_and_its_siblings() -> None:
    siblings = "away, clip, level, name, parts, rounds, silos, targets"
    assert says({"silo": 2}) == f"There is no key 'silo'. Did you mean 'silos'? Known: {siblings}."
    assert says({"qqq": 2}) == f"There is no key 'qqq'. Known: {siblings}."
    found = says({"local": {"batches": 2}}, "run")
    assert found == (
        "There is no key 'run.local.batches'. Did you mean 'run.local.batch'? "
        "Known: run.local.batch, run.local.optimizer."
    )


def test_where_a_key_has_no_siblings_all_are_listed() -> None:
    assert unknown_key("q.z", ["b.c", "a"]) == "There is no key 'q.z'. Known: a, b.c."
    assert unknown_key("q", []) == "There is no key 'q'. Known: none."
    # six letters of ten in common are near enough, and less is not
    assert "Did you mean 'abcxy'?" in unknown_key("abcde", ["abcxy"])
    assert "Did you mean" not in unknown_key("abcd", ["abxy"])


def test_keys_are_those_that_hold_a_value_in_order_with_nested_ones_opened_up() -> None:
    inner = ["local.batch", "local.optimizer", "shadow.batch", "shadow.optimizer"]
    expected = ["silos", "rounds", "name", "clip", *inner, "away", "targets", "level", "parts"]
    assert list(keys(Options)) == expected
    assert list(keys(Options, "run")) == [f"run.{key}" for key in expected]


@pytest.mark.parametrize(
    ("annotation", "config"),
    [
        (Local, Local),
        (Local | None, Local),
        (int, None),
        (int | None, None),
        (tuple[Local, ...], None),
        (list[Local], None),
        (dict[str, Local], None),
        (tuple[Local, ...] | None, None),
        (Literal["a"], None),
    ],
)
def test_a_list_or_a_table_of_configurations_is_a_plain_value(annotation: Any, config: type[Config] | None) -> None:
    assert nested(annotation) is config
