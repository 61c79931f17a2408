"""What is asked: the small federation, the options that make it cheap, and the keys under which answers are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.core.versions import harness
from bench.plugins.find import Kind, Plugins

TASK = "clinical-notes"
#: the attack that every defense is asked by, and the defenses that every attack is made on
EVERYWHERE, FULL = "mia", ("fedavg", "fedshield")
SECRET_SEED = 7
#: seconds for all together: few records, one epoch, an adapter on one projection of the first layer
FEDERATION = {
    "pool.candidates": "6",
    "pool.validation": "2",
    "pool.heldout": "6",
    "pool.population": "10",
    "pool.max_tokens": "48",
    "federation.rounds": "2",
    "federation.lora.targets": '["0.self_attn.q_proj"]',
    "federation.lora.rank": "4",
    "federation.local.epochs": "1",
    "federation.local.batch": "2",
    "clinical-notes.notes": "200",
}
#: a view tries every key that it holds on every message: one round where parties deal many keys
MANY_KEYS = {"federation.rounds": "1"}
#: and two silos where that is slowest; ``secagg`` and ``threshold-ckks`` have three
FEW_SILOS = {"federation.silos": "2"}
#: where a sum is never twice the same to the bit, or what is sent hangs on which values are largest, training must be
#: smooth, and AdamW's first steps are signs, all of one size
SMOOTH = {"federation.local.optimizer": "sgd", "federation.local.lr": "1"}
OF_DEFENSE: Mapping[str, Mapping[str, str]] = {
    **dict.fromkeys(("bfv", "secagg", "threshold-ckks"), MANY_KEYS),
    "fedshield-exact": {**MANY_KEYS, **FEW_SILOS},
    "rlwe": {**MANY_KEYS, **FEW_SILOS},
    **dict.fromkeys(("ckks", "dp-fedavg", "fedshield", "prune", "selective-ckks", "top-k"), SMOOTH),
    # its noise is searched for anew where half of the factors move; the others show that search
    "dp-alternate-lora": {"dp-alternate-lora.epsilon": "null", "dp-alternate-lora.sigma": "0.6"},
    # noise as large as the default's would leave a model of noise, where any digit decides
    "local-dp": {**SMOOTH, "local-dp.clip": "0.01"},
}
#: by attack and option; what an attack does not name it has from its own defaults
OF_ATTACK: Mapping[str, Mapping[str, str]] = {
    "ascent": {"steps": "3", "controls": "8"},
    "audit": {"canaries": "24"},
    "crafted": {"amplify": "2"},
    "gradient-matching": {"budget": "200"},
    "learned-inversion": {"simulations": "2"},
    "lira": {"models": "3"},
    "participation": {"simulations": "1", "steps": "4"},
    "rmia": {"models": "3"},
}
#: of every attack that has these options: fewer scores, as they are most of what is recorded
FEWER = {"windows": "[2,5]", "fractions": "[0.2]", "population": "16"}


def keys(plugins: Plugins, defense: str, attacks: Sequence[str]) -> dict[str, str]:
    """Key by attack, and that of the run under the empty name. A key names all that may change an answer: an attack's
    new version changes the keys of that attack and no other."""
    of = harness()
    run = f"{_at(plugins, 'task', TASK)}--{_at(plugins, 'defense', defense)}"
    found = {"": f"{run}--T{of['TRAINING']}-S{of['SCORING']}"}
    for attack in attacks:
        ending = f"T{of['TRAINING']}-V{of['VIEWS']}-S{of['SCORING']}"
        found[attack] = f"{run}--{_at(plugins, 'attack', attack)}--{ending}"
    return found


def _at(plugins: Plugins, kind: Kind, name: str) -> str:
    return f"{name}@{plugins.find(kind, name).version}"


def built_in(plugins: Plugins, kind: Kind) -> tuple[str, ...]:
    """Names of the plug-ins that come with the harness."""
    return tuple(one.name for one in plugins.all(kind) if one.origin == "built-in")


def attacks_on(plugins: Plugins, defense: str) -> tuple[str, ...]:
    """The attacks whose answers under ``defense`` are recorded."""
    return built_in(plugins, "attack") if defense in FULL else (EVERYWHERE,)


def sets(plugins: Plugins, defense: str, attacks: Iterable[str], more: Mapping[str, str]) -> tuple[str, ...]:
    """What ``--set`` is given for ``defense`` and ``attacks``; ``more`` goes over it."""
    found = {**FEDERATION, **OF_DEFENSE.get(defense, {})}
    for attack in attacks:
        options = plugins.find("attack", attack).config_class.model_fields
        mine = {key: value for key, value in FEWER.items() if key in options} | dict(OF_ATTACK.get(attack, {}))
        found |= {f"{attack}.{key}": value for key, value in mine.items()}
    return tuple(f"{key}={value}" for key, value in {**found, **more}.items())
