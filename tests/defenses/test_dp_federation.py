"""Private trainers in whole federations of a small model: what travels, what stays, and which state no view shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.adversaries import assignments
from bench.core.parties import silo
from bench.core.streams import Streams
from bench.defense.compose import Defense, compose, fill
from bench.defense.public import Public, alike
from bench.federation.rounds import Federation
from bench.federation.setup import Setup, participants
from bench.privacy import claim, composition
from bench.spec.run import FederationSpec, LocalSpec
from bench.transcript.notes import logged_mechanisms
from bench.transcript.transcript import Transcript
from bench.view.build import build
from defenses import dedup, dp_alternate_lora, dp_ffa_lora, dp_ftrl, dp_sgd, scrub
from tests.defenses.dp_audit import little_llama, make_tokens

RECORDS = 6
LOCAL = LocalSpec(epochs=1, batch=2, lr=1e-2)


def make_setup(defense: Defense, **federation: Any) -> Setup:
    spec = FederationSpec(**{"silos": 3, "rounds": 3, "local": LOCAL, **federation})
    model, streams, parts = little_llama(), Streams(0), fill(defense)
    silos = tuple(silo(i) for i in range(spec.silos))
    sizes = dict.fromkeys(silos, RECORDS)
    weights = {name: parts.weight(RECORDS) for name in silos}
    public = Public(alike(model.layout), silos, weights, spec.rounds, participants(spec, streams))
    initial = model.initial_adapter(np.random.default_rng(0))

    def tokens(name: str) -> Any:
        return make_tokens([4] * RECORDS, seed=int(name[-1]))

    return Setup(model, parts, public, spec, initial, streams, None, tokens, sizes)


def run(root: Path, setup: Setup, on_round: Callable[[int], None] | None = None) -> Transcript:
    fresh = not (root / "manifest.json").exists()
    transcript = Transcript.create(root, setup.public, setup.initial, {}) if fresh else Transcript(root)
    Federation(setup, transcript).run(on_round)
    return transcript


def moved(transcript: Transcript, round: int) -> set[str]:
    """Which factors the round changed at all."""
    before = transcript.initial_adapter() if round == 0 else transcript.truth(round - 1, "adapter")
    after = transcript.truth(round, "adapter")
    assert before is not None
    assert after is not None
    pairs = zip(transcript.public.layout.tensors(before), transcript.public.layout.tensors(after), strict=True)
    return {name.split("lora_")[1][0] for (name, old), (_, new) in pairs if not np.array_equal(old, new)}


def uploaded(transcript: Transcript) -> int:
    return sum(sum(m.lengths) for m in transcript.messages() if m.stage == "upload")


def test_ffa_lora_leaves_a_and_halves_the_bytes(tmp_path) -> None:
    both = run(tmp_path / "both", make_setup(dp_sgd.build(dp_sgd.Config(sigma=1.0))))
    one = run(tmp_path / "one", make_setup(dp_ffa_lora.build(dp_ffa_lora.Config(sigma=1.0))))
    assert [moved(both, r) for r in range(3)] == [{"A", "B"}] * 3
    assert [moved(one, r) for r in range(3)] == [{"B"}] * 3
    layout = one.public.layout
    of_b = sum(int(np.prod(s)) for n, s in zip(layout.names, layout.shapes, strict=True) if "lora_B" in n)
    assert uploaded(both) - uploaded(one) == pytest.approx(9 * 4 * (layout.size - of_b), abs=9 * 40)  # but headers
    everything = run(tmp_path / "all", make_setup(dp_ffa_lora.build(dp_ffa_lora.Config(sigma=1.0, send="all"))))
    assert [moved(everything, r) for r in range(3)] == [{"B"}] * 3


def test_alternation_moves_b_then_a(tmp_path) -> None:
    transcript = run(tmp_path, make_setup(dp_alternate_lora.build(dp_alternate_lora.Config(sigma=1.0))))
    assert [moved(transcript, r) for r in range(3)] == [{"B"}, {"A"}, {"B"}]


@pytest.mark.parametrize("module", [dp_sgd, dp_ftrl])
def test_records_that_are_chosen_by_comparing_them_void_the_promise(module) -> None:
    """Without a record its duplicate is trained on, which was not before: neighbours are no neighbours any more."""
    private = ("private", module.build(module.Config(sigma=1.0)))
    logged = {"silo-0": fill(private[1]).trainer.plan(1, LOCAL, RECORDS)}
    for part, holds in ((scrub, True), (dedup, False)):
        promises = fill(compose([("records", part.build(part.Config())), private])).promises
        found = claim(logged, promises, frozenset({"server"}), ["silo-0"], {"silo-0": RECORDS})
        assert (found.epsilon is not None) == holds
        assert ("bring others back" in found.note) != holds


FTRL = dp_ftrl.Config(sigma=1.0)


def test_ftrl_counts_the_steps_of_the_rounds_that_a_silo_was_in(tmp_path) -> None:
    """3 steps a round. Who sits a round out continues its own sequence, and pays for its own steps only."""
    setup = make_setup(dp_ftrl.build(FTRL), rounds=4, client_fraction=0.5)
    transcript = run(tmp_path, setup)
    logged = logged_mechanisms(transcript)
    for name in setup.public.silos:
        rounds = sum(name in called for called in setup.public.participants)
        assert sum(m.params["steps"] for m in logged[name]) == 3 * rounds
        if rounds:
            assert stored(tmp_path, name, "step") == 3 * rounds
            ((_, sigma, count),) = composition(logged[name], "zero-out")
            assert count == 1
            assert sigma >= 1.0 - 1e-9
    found = claim(logged, setup.parts.promises, frozenset({"server"}), setup.public.silos[:1], setup.nominal_sizes)
    assert (found.epsilon is not None) == bool(logged["silo-0"])


def stored(root: Path, party: str, key: str) -> np.ndarray:
    (path,) = (root / "secrets").glob(f"*/{party}/trainer/{key}.npy")
    return np.asarray(np.load(path, allow_pickle=False))


def test_ftrl_goes_on_after_an_interruption(tmp_path) -> None:
    setup = make_setup(dp_ftrl.build(FTRL))

    def stop(round: int) -> None:
        if round == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, setup, stop)
    kept = stored(tmp_path, "silo-1", "noise")
    assert Transcript(tmp_path).committed() == 0
    run(tmp_path, make_setup(dp_ftrl.build(FTRL)))
    assert stored(tmp_path, "silo-1", "step") == 9
    assert kept.shape == stored(tmp_path, "silo-1", "noise").shape == (2, setup.public.layout.size)


def files_with(folder: Path, needles: list[bytes]) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and any(n in p.read_bytes() for n in needles)]


def test_no_message_and_no_view_holds_the_noise_that_would_undo_it(tmp_path) -> None:
    """Every stored noise value is searched for, in windows of 4 values: in the silo's own secrets it is found, in what
    was sent and in what any coalition without the silo reads it is not."""
    root = tmp_path / "run"
    setup = make_setup(dp_ftrl.build(FTRL))
    transcript = run(root, setup)
    needles = {}
    for name in setup.public.silos:
        noise = stored(root, name, "noise")
        windows = noise[:, : noise.shape[1] // 4 * 4].reshape(-1, 4)
        needles[name] = [w.tobytes() for w in windows[:: len(windows) // 40]]
        assert {p.parent.parent.name for p in files_with(root / "secrets", needles[name])} == {name}
        assert files_with(root / "rounds", needles[name]) == []
    number = 0
    for adversary in ("outsider", "silo", "server", "server+silo", "all-but-one"):
        for assignment in assignments(adversary, setup.public.silos):
            folder = tmp_path / "views" / str(number)
            build(transcript, setup.parts, adversary, assignment, folder)
            for victim in assignment.victims:
                assert files_with(folder, needles[victim]) == []
            number += 1
    assert number == 11
    for name in setup.public.silos:
        assert not any("noise" in key for key in transcript.keys(name))
