"""Attacks in processes of their own: the same guesses, nothing but the view's files within reach."""

from __future__ import annotations

import contextlib
import io
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.assess.assess import Assessor
from bench.assess.isolation import sandbox
from bench.assess.isolation.codec import Decoder, Encoder
from bench.assess.isolation.parent import Origin, _passed, isolated
from bench.attack.attack import Attack, Guesses, Target
from bench.conformance.attack import _alike
from bench.conformance.playground import Playground
from bench.core.errors import SiloBenchError
from bench.plugins.find import Plugins
from bench.spec.run import PluginSpec
from tests.grounds import ground as trained
from tests.grounds import untrained

PROBE = '''
"""Looks around: scores are 1 where it could read what it must not."""
import os
import socket
from pathlib import Path
import numpy as np
from bench import Attack, Guesses
from bench import Config as Base

api = 1
version = 1

class Config(Base):
    secret: str = ""
    mode: str = "look"

class Probe(Attack):
    game = "membership"
    needs = frozenset({"query", "adapter", "upload"})

    def __init__(self, config):
        self.config = config

    def infer(self, view, candidates, tools):
        print("an attack may print")
        if self.config.mode == "raise":
            raise RuntimeError("it broke")
        if self.config.mode == "die":
            os._exit(7)
        found = {}
        try:
            Path(self.config.secret).read_bytes()
            found["file"] = 1.0
        except OSError:
            found["file"] = 0.0
        try:
            (Path(self.config.secret).parent / "written").write_text("x")
            found["write"] = 1.0
        except OSError:
            found["write"] = 0.0
        try:
            Path("/dev/shm/silobench-probe").write_text("what one question leaves another finds")
            found["shared"] = 1.0
        except OSError:
            found["shared"] = 0.0
        try:
            socket.create_connection(("127.0.0.1", int(os.environ.get("PROBE_PORT", "9"))), 1).close()
            found["network"] = 1.0
        except ConnectionRefusedError:
            found["network"] = 1.0
        except OSError:
            found["network"] = 0.0
        for name, where in (("process", f"/proc/{os.getppid()}/cmdline"), ("disk", "/dev/vda")):
            try:
                with open(where, "rb") as file:
                    found[name] = float(len(file.read(1)) > 0)
            except OSError:
                found[name] = 0.0
        loss = -tools.token_stats(view.last_adapter(view.victims[0]), candidates.tokens).losses()
        n = len(candidates.ids)
        return Guesses({"loss": loss, **{k: np.full(n, v) for k, v in found.items()}}, ("probe",))

def build(config: Config) -> Attack:
    return Probe(config)
'''


@pytest.fixture(scope="module")
def ground() -> Playground:
    return untrained("membership")


@pytest.fixture(scope="module")
def rebuilt() -> Playground:
    return trained("reconstruction")


def apart(
    ground: Playground, plugins: Plugins, name: str, config: dict[str, Any] | None = None
) -> tuple[Attack, Attack]:
    """The attack here, and the same in a process of its own."""
    plugin = plugins.find("attack", name)
    spec = PluginSpec(name=name, config=plugin.validate(config or {}).model_dump(mode="json"))
    here: Attack = plugin.build(spec.config)
    return here, isolated(here, Origin(plugin, spec, ground.run.spec, ground.materials))


def probe(ground: Playground, folder: Path, **config: str) -> Attack:
    path = folder / "probe.py"
    path.write_text(PROBE)
    return apart(ground, Plugins([path]), "probe", config)[1]


def ask(ground: Playground, attack: Attack) -> Guesses:
    ids = sorted(i for v in ground.view.victims for i in ground.materials.pool.silos[v])[::3]
    return attack.infer(ground.view, ground.candidates(ids), ground.tools(ids, attack.shadows))


def built_in(game: str) -> list[Any]:
    """Every attack of a game; those beside the plainest take their minutes in 'tox -e slow'."""
    found = []
    plugins = Plugins()
    for name in plugins.names("attack"):
        if plugins.find("attack", name).build({}).game == game:
            marks = [] if name in ("mia", "gradient", "inversion") else [pytest.mark.slow]
            found.append(pytest.param(name, marks=marks))
    return found


@pytest.mark.parametrize("name", built_in("membership"))
def test_membership_attacks_guess_the_same_elsewhere(ground: Playground, name: str) -> None:
    here, there = apart(ground, Plugins(), name)
    one, other = ask(ground, here), ask(ground, there)
    assert set(one.scores) == set(other.scores)
    assert one.reads == other.reads
    assert dict(one.missing) == dict(other.missing)
    for key, values in one.scores.items():
        np.testing.assert_allclose(other.scores[key], values, rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", built_in("reconstruction"))
def test_reconstructions_are_the_same_elsewhere(rebuilt: Playground, name: str) -> None:
    here, there = apart(rebuilt, Plugins(), name)
    targets = [Target(0, victim, 1, 1) for victim in rebuilt.view.victims]
    one, other = (list(a.reconstruct(rebuilt.view, targets, rebuilt.tools())) for a in (here, there))
    assert [a.sequences for a in one] == [tuple(map(tuple, a.sequences)) for a in other]
    assert [a.target for a in one] == [a.target for a in other]


@pytest.mark.parametrize(
    ("name", "adversary"),
    [("label-distribution", "user"),
     *(pytest.param(*case, marks=pytest.mark.slow)
       for case in (("label-distribution", "server"), ("extraction", "server"), ("extraction", "user")))],
)  # fmt: skip
def test_answers_that_name_readings_or_labels_are_the_same_elsewhere(name: str, adversary: str) -> None:
    """Through the whole game, trial by trial; the conformance kit does so for every attack."""
    plugins = Plugins()
    ground = untrained(plugins.find("attack", name).build({}).game)
    here, there = (ground.assess(name, attack, adversary) for attack in apart(ground, plugins, name))
    assert (here.status, there.status) == ("ok", "ok"), there.note
    assert _alike(json.loads(here.sheet or "null"), json.loads(there.sheet or "0"))
    assert here.reads == there.reads


@pytest.mark.skipif(sandbox.version() == 0, reason="this kernel has no Landlock")
def test_nothing_of_the_run_is_within_reach(ground: Playground, tmp_path: Path) -> None:
    truth = next((ground.run.transcript.root / "truth").rglob("*.json"))
    assert truth.read_bytes()
    found = ask(ground, probe(ground, tmp_path, secret=str(truth)))
    assert {k: set(v.tolist()) for k, v in found.scores.items() if k != "loss"} == {
        "file": {0.0},
        "write": {0.0},
        "shared": {0.0},
        "process": {0.0},
        "disk": {0.0},
        **({"network": {0.0}} if sandbox.version() >= 4 else {"network": {1.0}}),
    }
    assert not (truth.parent / "written").exists()


def test_the_probe_reads_the_file_where_nothing_confines_it(ground: Playground, tmp_path: Path) -> None:
    """Without the process of its own the same code reads the truth: the test above can fail."""
    truth = next((ground.run.transcript.root / "truth").rglob("*.json"))
    (tmp_path / "probe.py").write_text(PROBE)
    here, _ = apart(ground, Plugins([tmp_path / "probe.py"]), "probe", {"secret": str(truth)})
    found = ask(ground, here).scores
    assert {set(found[name].tolist()) == {1.0} for name in ("file", "process")} == {True}
    (truth.parent / "written").unlink()
    Path("/dev/shm/silobench-probe").unlink(missing_ok=True)


def test_an_attack_that_breaks_or_dies_is_one_sentence(ground: Playground, tmp_path: Path) -> None:
    with pytest.raises(SiloBenchError, match=r"RuntimeError.*it broke"):
        ask(ground, probe(ground, tmp_path, mode="raise"))
    with pytest.raises(SiloBenchError, match="ended with status 7"):
        ask(ground, probe(ground, tmp_path, mode="die"))


def test_it_is_a_row_like_any_other(ground: Playground) -> None:
    _, there = apart(ground, Plugins(), "mia")
    found = Assessor(ground.run, ground.memo).assess("mia", there, "server")
    assert found.status == "ok"
    assert getattr(there, "confined", "").startswith("Landlock") or sandbox.version() == 0


def test_values_survive_the_way() -> None:
    target = Target(1, "silo-0", 2, 3)
    value = {"a": (1, 2.5, "x", None, True), "t": target, "n": np.arange(6, dtype=np.int32).reshape(2, 3)}
    back = Decoder().loads(Encoder().dumps(value))
    assert back["a"] == value["a"]
    assert back["t"] == target
    np.testing.assert_array_equal(back["n"], value["n"])
    assert back["n"].dtype == np.int32


@pytest.mark.parametrize("data", [b"", b"nonsense", Encoder().dumps({"a": 1})[:-20]])
def test_malformed_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SiloBenchError, match="malformed"):
        Decoder().loads(data)


def test_an_archive_that_swells_is_refused() -> None:
    """A few kilobytes that unpack to a hundred megabytes, and an entry whose header promises a terabyte."""
    packed = io.BytesIO()
    np.savez_compressed(packed, text=np.zeros(10**8, np.uint8))
    assert len(packed.getvalue()) < 10**6
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (10**12,)})
    promised = io.BytesIO()
    with zipfile.ZipFile(promised, "w") as archive:
        archive.writestr("text.npy", head.getvalue())
    open_bracket = io.BytesIO()
    with zipfile.ZipFile(open_bracket, "w") as archive:
        archive.writestr("text.npy", b"\x93NUMPY\x01\x00\x01\x00(" + bytes(40))
    for data in (packed.getvalue(), promised.getvalue(), open_bracket.getvalue()):
        tracemalloc.start()
        with pytest.raises(SiloBenchError, match="malformed"):
            Decoder().loads(data)
        assert tracemalloc.get_traced_memory()[1] < 10**7
        tracemalloc.stop()


GOOD = Encoder().dumps({"t": Target(1, "silo-0", 2, 3), "n": np.arange(6.0)})


@given(places=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_give_a_value_or_one_sentence(places: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for place, byte in places:
        data[place] = byte
    with contextlib.suppress(SiloBenchError):
        Decoder().loads(bytes(data))


def test_objects_do_not_travel() -> None:
    with pytest.raises(SiloBenchError, match="object"):
        Encoder().dumps({"a": object()})
    with pytest.raises(SiloBenchError, match="objects"):
        Encoder().dumps(np.array([object()], dtype=object))


def test_readings_travel_as_their_place_in_a_view(ground: Playground) -> None:
    reading = ground.view.readings[-1]
    data = Encoder([ground.view]).dumps({"of": reading})
    assert Decoder([ground.view]).loads(data)["of"] is reading
    with pytest.raises(SiloBenchError, match="names a view that is not there"):
        Decoder().loads(data)
    with pytest.raises(SiloBenchError, match="of no view"):
        Encoder().dumps(reading)


@pytest.mark.parametrize(
    ("named", "wrong"),
    [({"view": 1}, "a view"), ({"view": -1}, "a view"), ({"reading": [0, 10_000]}, "a reading"),
     ({"reading": [0, -1]}, "a reading"), ({"reading": [1, 0]}, "a view"), ({"reading": 3}, "malformed"),
     ({"view": False}, "a view"), ({"view": "0"}, "a view"), ({"view": 0, "list": []}, "malformed"),
     ({"lists": []}, "malformed .*'lists' is no form"), ([], "malformed"),
     ({"data": "View", "fields": {}}, "malformed"), ({"data": "Target", "fields": {"x": 1}}, "malformed"),
     ({"array": "a9"}, "malformed")],
)  # fmt: skip
def test_places_that_do_not_exist_are_refused(ground: Playground, named: Any, wrong: str) -> None:
    data = io.BytesIO()
    np.savez(data, text=np.frombuffer(json.dumps(named).encode(), dtype=np.uint8))
    with pytest.raises(SiloBenchError, match=wrong):
        Decoder([ground.view]).loads(data.getvalue())


def test_a_child_gets_forward_passes_of_records_only(ground: Playground) -> None:
    records, tools = ground.candidates(ground.materials.pool.silos["silo-0"][:2]).tokens, ground.tools()
    assert _passed("stats", None, records, tools).losses().shape == (2,)
    for kind, what, tokens in (
        ("stats", 3, records),
        ("stats", None, "text"),
        ("under", None, records),
        ("under", "x", records),
    ):
        with pytest.raises(SiloBenchError, match="something else than records"):
            _passed(kind, what, tokens, tools)
