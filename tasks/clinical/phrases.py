"""Sentence templates in two styles that share most of them; a note's first words tell its style.

Slots: ``{3-14}`` a whole number in that range, ``{36.4-39.8}`` a number with one decimal, ``{a|b|c}`` one of these;
the other names are ``generator.SLOTS``. The task is written in ``WARD``; the tiny model is pretrained
mostly on ``GENERAL``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.clinical import wards

OUTCOMES = ("improved", "unchanged", "worsened")

OPENING = (
    "{name}, {age}, record {record}, seen on {date} in {ward}.",
    "{date}, {ward}. {name}, {age} years old, record {record}.",
    "Record {record}: {name}, aged {age}, {ward}, {date}.",
    "{ward} note of {date} on {name}, record {record}, {age} years.",
    "On {date} {name} ({age}, record {record}) was reviewed in {ward}.",
)

COMPLAINT = (
    "Came with {symptom} for {2-13} {days|weeks}, worse {at night|on walking|after meals|in the morning}.",
    "Admitted after {2-20} hours of {symptom} and some {symptom}.",
    "Reports {symptom} since {a fall|a flight|a cold|lifting a crate|a change of tablets|gardening} {2-9} days ago.",
    "Sent by the family doctor for {symptom}, first noticed on {earlier}.",
    "Main trouble is {symptom}; {he} also mentions {symptom}.",
)

BACKGROUND = (
    "Known {condition} since {1988-2022}, on {drug} {dose} {frequency}.",
    "{He} lives in {town} with {kin} and works as a {job}.",
    "Past history of {condition}; allergic to {penicillin|latex|iodine|aspirin|nothing known}.",
    "A {retired|former|part-time} {job} from {town}, smokes {0-30} a day.",
    "{His} usual {drug} {dose} was stopped on {earlier}.",
    "Weight {44-121} kg, height {148-196} cm, {no alcohol|little alcohol|{2-40} units of alcohol a week}.",
)

EXAMINATION = (
    "Blood pressure {92-188}/{48-104}, pulse {52-134}, temperature {35.9-39.8}.",
    "Temperature {35.9-39.8}, saturation {84-99} percent, {measure} {level}.",
    "Blood tests: haemoglobin {71-168}, sodium {122-148}, {measure} {level}.",
    "On examination {symptom}; {measure} is {level}.",
    "Pulse {52-134}, breathing {11-34}, weight {44.0-119.9} kg.",
)

TREATMENT = (
    "{drug} {dose} {frequency} was started by Dr {surname}.",
    "Dr {surname} raised {drug} from {dose} to {more}.",
    "Given {drug} {dose} and {drug} {dose} {frequency}.",
    "{test} was done on {earlier} by Dr {surname}.",
    "Changed from {drug} to {drug} {dose} {frequency}.",
)

COURSE = {
    "improved": (
        "{measure} fell from {bad} to {good} in {2-9} days.",
        "The {trouble} eased within {3-48} hours.",
        "{He} walks {40-400} metres without help again.",
        "{He} slept well and the {trouble} is nearly gone.",
    ),
    "unchanged": (
        "{measure} stays at {level}, as on {earlier}.",
        "No clear change in the {trouble} after {2-9} days.",
        "The {trouble} comes and goes as it did on {earlier}.",
        "{test} shows the same picture as in {month}.",
    ),
    "worsened": (
        "{measure} rose from {good} to {bad} in {2-9} days.",
        "The {trouble} grew on day {2-12} in spite of treatment.",
        "Now needs {2-12} litres of oxygen and help to stand.",
        "Moved to intensive care at {1-23}:{10-59} with {symptom}.",
    ),
}
COURSE_GENERAL = {
    "improved": ("{He} feels much better than {2-9} weeks ago.",),
    "unchanged": ("{He} feels about the same as last month.",),
    "worsened": ("{He} feels a good deal worse than {2-9} weeks ago.",),
}
COURSE_WARD = {
    "improved": (
        "Off oxygen since day {2-9}, {measure} down to {good}.",
        "Drip removed on {earlier}, eats {half|all} of {his} meals.",
    ),
    "unchanged": ("Day {2-14}: {measure} again {level}, {symptom} persists.", "Neither gain nor loss in {2-9} days."),
    "worsened": (
        "Second line needed on day {2-9}, {measure} up to {bad}.",
        "Crash call at {1-23}:{10-59}, family informed.",
    ),
}

PLAN = (
    "Plan: {test} on {later}, then clinic with Dr {surname}.",
    "Review in {2-14} {days|weeks} with {measure}.",
    "Next: {test}, and {drug} {dose} {frequency} until {month}.",
    "Dr {surname} will call {kin} on {later}.",
)

FREQUENCIES = ("once a day", "twice a day", "three times a day", "at night", "every {4-12} hours", "with meals")


@dataclass(frozen=True)
class Style:
    """The wards and the templates of one population of patients. ``name`` keys its random stream."""

    name: str
    wards: tuple[wards.Ward, ...]
    opening: tuple[str, ...]
    complaint: tuple[str, ...]
    background: tuple[str, ...]
    examination: tuple[str, ...]
    treatment: tuple[str, ...]
    course: Mapping[str, tuple[str, ...]]
    plan: tuple[str, ...]


_SHARED_WARDS = (wards.CARDIOLOGY, wards.RESPIRATORY, wards.SURGERY, wards.NEUROLOGY)

GENERAL = Style(
    "general",
    (*_SHARED_WARDS, wards.GASTROENTEROLOGY, wards.ENDOCRINOLOGY, wards.RHEUMATOLOGY),
    (*OPENING, "Patient {name}. Record number {record}. Age {age}. Seen {date}, {ward} clinic."),
    (*COMPLAINT, "{He} called about {symptom} that started {2-9} weeks ago."),
    (*BACKGROUND, "{He} has {condition} and sees us every {2-9} months."),
    (*EXAMINATION, "Measured today: {measure} {level}, temperature {35.9-38.9}."),
    (*TREATMENT, "We agreed to try {drug} {dose} {frequency} for {2-12} weeks."),
    {outcome: COURSE[outcome] + COURSE_GENERAL[outcome] for outcome in OUTCOMES},
    (*PLAN, "{He} will come back in {2-9} months."),
)
WARD = Style(
    "ward",
    (*_SHARED_WARDS, wards.NEPHROLOGY, wards.ONCOLOGY),
    (
        "Ward round {date}, {ward}, bed {1-36}: {name}, record {record}, {age} y.",
        "{name} / {record} / {age} y / {ward} / {date}.",
        "Bed {1-36}, {ward}: {name}, {age} y, record {record}, {date}.",
        "{ward} handover {date}: {name}, {age} y, record {record}.",
    ),
    (*COMPLAINT, "Transfer from {town} with {symptom}, day {2-19} of illness."),
    (
        *BACKGROUND,
        "Next of kin is {kin} in {town}.",
        "Background: {condition}, {job}, {0-50} pack years.",
    ),
    (
        *EXAMINATION,
        "Obs {6-23}:{10-59}: BP {92-188}/{48-104}, HR {52-134}, T {35.9-39.8}.",
        "Labs: Hb {71-168}, Na {122-148}, {measure} {level}.",
    ),
    (*TREATMENT, "Rx: {drug} {dose} {frequency}, first dose {6-23}:{10-59}."),
    {outcome: COURSE[outcome] + COURSE_WARD[outcome] for outcome in OUTCOMES},
    (*PLAN, "Home on {later} to {town} if {measure} is below {level}."),
)
