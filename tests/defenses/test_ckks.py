"""The CKKS channel: sums, what travels, who holds which key, and bytes that others made up."""

from __future__ import annotations

import numpy as np
import pytest
import tenseal as ts
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import CannotOpen, SiloBenchError
from bench.core.parties import DEALER, SERVER
from bench.core.streams import SecretStreams
from bench.core.update import Form, Grid, Layout, Update
from bench.defense.channel import Knowledge
from defenses.channels import ckks
from defenses.channels.ckks import CKKS, RESCALE_PRIME, SLOTS
from tests.defenses.exchange import one_round, public

SECRET = SecretStreams("silo-0")
SMALL = Layout(("a", "b"), ((2, 3), (5,)))


@pytest.fixture(scope="module")
def channel() -> CKKS:
    return CKKS()


@pytest.fixture(scope="module")
def keys(channel) -> dict[str, dict[str, bytes]]:
    return {party: dict(held) for party, held in channel.keys(public(SMALL, 2), SECRET).items()}


def seal(channel, values, layout, keys) -> list[bytes]:
    return list(channel.seal(Update(np.asarray(values, np.float32), layout), keys["silo-0"], SECRET, 0))


def total(channel, uploads, keys) -> list[bytes]:
    frames = []
    for parts in zip(*uploads, strict=True):
        running = None
        for part in parts:
            running = channel.add(running, part, keys["server"])
        frames.append(channel.finish(running, keys["server"]))
    return frames


shapes = st.lists(
    st.one_of(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.sampled_from([(SLOTS,), (SLOTS + 1,), (1,)])),
    min_size=1,
    max_size=4,
)


@settings(max_examples=15, deadline=None)
@given(shapes, st.integers(1, 4), st.sampled_from([1e-4, 0.05, 1.0, 50.0]), st.integers(0, 2**32 - 1))
def test_an_opened_sum_is_the_sum(channel, keys, shape, silos, size, seed) -> None:
    layout = Layout(tuple(map(str, range(len(shape)))), tuple(shape))
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal((silos, layout.size)) * size).astype(np.float32)
    values[rng.random(values.shape) < 0.5] = 0
    uploads = [seal(channel, v, layout, keys) for v in values]
    opened = channel.open(iter(total(channel, uploads, keys)), keys["silo-1"], Form(layout), silos)
    assert np.abs(opened - values.sum(0, dtype=np.float64)).max() < min(channel.error, 1e-7 * silos)
    single = channel.open(iter(uploads[0]), keys["silo-1"], Form(layout), 0)
    assert np.abs(single - values[0]).max() < 1e-7


def test_the_stated_error_holds_for_thirty_silos(channel, keys) -> None:
    """The largest of 4,096 errors is a quarter of it. It grows with silos: at a hundred it reaches the stated one."""
    layout = Layout(("a",), ((SLOTS,),))
    values = np.random.default_rng(3).standard_normal(SLOTS).astype(np.float32)
    uploads = [seal(channel, values, layout, keys) for _ in range(30)]
    opened = channel.open(iter(total(channel, uploads, keys)), keys["silo-0"], Form(layout), 30)
    assert np.abs(opened - 30.0 * values.astype(np.float64)).max() < channel.error


def test_the_rescaling_prime_is_seals() -> None:
    import tenseal.sealapi as seal_api

    primes = seal_api.CoeffModulus.Create(ckks.DEGREE, list(ckks.COEFFICIENT_BITS))
    assert int(primes[2].value()) == RESCALE_PRIME


def test_adding_changes_no_upload(channel, keys) -> None:
    uploads = [seal(channel, [i + 1] * SMALL.size, SMALL, keys) for i in range(2)]
    first = channel.open(iter(total(channel, uploads, keys)), keys["silo-0"], Form(SMALL), 2)
    second = channel.open(iter(total(channel, uploads, keys)), keys["silo-0"], Form(SMALL), 2)
    np.testing.assert_allclose(first, 3, atol=1e-6)
    np.testing.assert_allclose(second, 3, atol=1e-6)


def smollm_rank_8() -> Layout:
    per_layer = ((8, 576), (576, 8), (8, 576), (192, 8))
    return Layout(tuple(map(str, range(120))), per_layer * 30)


def test_traffic_is_the_published_paths(channel, keys, capfd) -> None:
    """SmolLM2-135M, r=8 on q and v: 210 ciphertexts, 151 bytes a value up, 107 down, as FACTS of the published path."""
    layout = smollm_rank_8()
    assert layout.size == 460_800
    assert len(list(ckks._spans(layout))) == 210
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    tensor = Layout(("a",), ((5000,),))
    ours = seal(channel, values, tensor, keys)
    down = total(channel, [ours], keys)
    assert "WARNING" not in capfd.readouterr().out
    context = ts.context_from(keys["silo-0"]["secret"])
    published = ts.ckks_vector(context, values)
    assert len(ours) == len(published.ciphertext()) == 2
    assert sum(map(len, ours)) == pytest.approx(len(published.serialize()), rel=1e-2)
    assert sum(map(len, down)) == pytest.approx(len((published * 1.0).serialize()), rel=1e-2)
    assert 210 * len(ours[0]) / layout.size == pytest.approx(151.0, abs=2)
    assert 210 * len(down[0]) / layout.size == pytest.approx(107.1, abs=2)


def test_pruned_values_save_no_byte(channel, keys) -> None:
    layout = Layout(("a",), ((SLOTS,),))
    dense = seal(channel, np.ones(SLOTS), layout, keys)
    zeros = seal(channel, np.zeros(SLOTS), layout, keys)
    assert len(zeros[0]) == pytest.approx(len(dense[0]), rel=1e-2)


def test_two_seals_of_one_update_share_nothing(channel, keys) -> None:
    first, second = (seal(channel, np.ones(SMALL.size), SMALL, keys)[0] for _ in range(2))
    assert first != second
    # no 16 aligned bytes of one body recur in the other
    blocks = {first[i : i + 16] for i in range(256, len(first) - 256, 16)}
    assert not blocks & {second[i : i + 16] for i in range(256, len(second) - 256, 16)}


@pytest.mark.parametrize("holder", ["silos", "server"])
def test_a_whole_round_through_the_endpoints(holder) -> None:
    rng = np.random.default_rng(1)
    values = [rng.standard_normal(SMALL.size).astype(np.float32) for _ in range(3)]
    run = one_round(CKKS(holder), SMALL, values)
    openers = {"silo-0", "silo-1", "silo-2"} if holder == "silos" else {SERVER}
    assert set(run.opened) == openers
    for opened in run.opened.values():
        np.testing.assert_allclose(opened, np.sum(values, axis=0), atol=1e-6)
    dealt = [m for m in run.messages if m.sender == DEALER]
    assert {r for m in dealt for r in m.receivers} == {"silo-0", "silo-1", "silo-2", SERVER}
    assert all(m.round == -1 for m in dealt)


@pytest.mark.parametrize("holder", ["silos", "server"])
def test_the_secret_key_reaches_its_holders_only(holder) -> None:
    run = one_round(CKKS(holder), SMALL, [np.ones(SMALL.size, np.float32)] * 2)
    for party in ("silo-0", "silo-1", SERVER):
        holds = (party == SERVER) == (holder == "server")
        assert ("keys/secret" in run.states[party]) == holds
        contexts = []
        for message in run.to(party):
            for frame in message.content:
                try:
                    contexts.append(ts.context_from(frame, n_threads=1))
                except Exception:
                    continue  # every other frame is a header or a ciphertext
        assert len(contexts) == 1
        assert contexts[0].has_secret_key() == holds
        assert not contexts[0].has_galois_keys()
        assert not contexts[0].has_relin_keys()
    dealer = {name.rpartition("/")[2] for name in run.states[DEALER]}
    assert dealer == {"secret", "public"}  # a dealer that colludes knows all


@pytest.mark.parametrize(
    ("holder", "reader", "reads"), [("silos", SERVER, 0), ("silos", "silo-0", 2), ("server", SERVER, 2)]
)
def test_what_a_party_reads_follows_from_its_key(holder, reader, reads) -> None:
    """With all messages before it, a key holder reads what it did not send itself, others nothing."""
    channel = CKKS(holder)
    values = [np.full(SMALL.size, i + 1.0, np.float32) for i in range(2)]
    run = one_round(channel, SMALL, values)
    held = {k[5:]: v for k, v in run.states[reader].items() if k.startswith("keys/")}
    knowledge = Knowledge(frozenset({reader}), public(SMALL, 2), run.messages, {reader: held}, {})
    found = list(channel.read(knowledge))
    assert len(found) == reads
    for candidate in found:
        expected = sum(values[int(s[-1])] for s in candidate.silos)
        np.testing.assert_allclose(candidate.values, expected, atol=1e-6)


def test_another_federations_key_opens_noise_or_nothing(channel, keys) -> None:
    upload = seal(channel, np.ones(SMALL.size), SMALL, keys)
    other = CKKS().keys(public(SMALL, 2), SECRET)["silo-0"]
    try:
        opened = channel.open(iter(upload), other, Form(SMALL), 0)
    except CannotOpen:
        return
    assert np.abs(opened - 1).max() > 1e3


def test_no_more_than_two_contexts_are_kept(keys) -> None:
    channel = CKKS()
    uploads = [seal(channel, np.ones(SMALL.size), SMALL, keys)]
    total(channel, uploads, keys)
    for _ in range(3):
        other = CKKS().keys(public(SMALL, 1), SECRET)["silo-0"]
        list(channel.seal(Update(np.ones(SMALL.size, np.float32), SMALL), other, SECRET, 0))
    assert ckks._load_context.cache_info().currsize == 2


def damaged(frame: bytes, rng: np.random.Generator) -> bytes:
    kind = rng.integers(4)
    if kind == 0:
        return rng.bytes(int(rng.integers(0, 600)))
    if kind == 1:
        return frame[: int(rng.integers(0, len(frame)))]
    body = bytearray(frame)
    spots = rng.integers(0, 150 if kind == 2 else len(body), 4)
    for spot in spots:
        body[spot] ^= int(rng.integers(1, 256))
    return bytes(body)


def test_damaged_ciphertexts_raise_nothing_but_our_errors(channel, keys) -> None:
    rng = np.random.default_rng(7)
    layout = Layout(("a",), ((64,),))
    frame = seal(channel, np.ones(64), layout, keys)[0]
    refused = 0
    for _ in range(150):
        bad = damaged(frame, rng)
        try:
            running = channel.add(channel.add(None, frame, keys["server"]), bad, keys["server"])
            channel.finish(running, keys["server"])
        except SiloBenchError:
            refused += 1
        try:
            opened = channel.open(iter([bad]), keys["silo-0"], Form(layout), 0)
            assert opened.shape == (64,)
            assert np.isfinite(opened).all()
        except CannotOpen:
            pass
    assert refused > 75


def test_damaged_keys_raise_nothing_but_our_errors(keys) -> None:
    rng = np.random.default_rng(8)
    raw = keys["server"]["public"]
    update = Update(np.ones(SMALL.size, np.float32), SMALL)
    for _ in range(60):
        try:
            list(CKKS().seal(update, {"public": damaged(raw, rng)}, SECRET, 0))
        except SiloBenchError:
            continue


@pytest.mark.parametrize("bits", [[60, 40, 60], [40, 20, 40]])
def test_a_key_with_other_parameters_is_refused(channel, bits) -> None:
    context = ts.context(ts.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=bits)
    context.global_scale = 2.0**40
    raw = context.serialize(save_galois_keys=False, save_relin_keys=False)
    with pytest.raises(SiloBenchError, match="other parameters"):
        list(channel.seal(Update(np.ones(SMALL.size, np.float32), SMALL), {"public": raw}, SECRET, 0))


def test_a_short_vector_is_not_spread_over_a_long_one(channel, keys) -> None:
    one = seal(channel, [5.0], Layout(("a",), ((1,),)), keys)[0]
    long = seal(channel, np.ones(6), Layout(("a",), ((6,),)), keys)[0]
    for first, second in ((one, long), (long, one)):
        with pytest.raises(SiloBenchError, match="can't be added"):
            channel.add(channel.add(None, first, keys["server"]), second, keys["server"])


def test_a_frame_of_several_ciphertexts_is_refused(channel, keys) -> None:
    context = ts.context_from(keys["silo-0"]["secret"])
    frame = ts.ckks_vector(context, np.zeros(SLOTS + 1)).serialize()
    with pytest.raises(SiloBenchError):
        channel.add(None, frame, keys["server"])


@pytest.mark.parametrize("change", [-1, 1])
def test_too_few_or_too_many_ciphertexts_are_refused(channel, keys, change) -> None:
    frames = seal(channel, np.ones(SMALL.size), SMALL, keys)
    frames = frames[:change] if change < 0 else [*frames, frames[0]]
    with pytest.raises(CannotOpen, match="ciphertexts than"):
        channel.open(iter(frames), keys["silo-0"], Form(SMALL), 0)


def test_a_ciphertext_of_another_length_is_refused(channel, keys) -> None:
    frames = seal(channel, np.ones(SMALL.size), SMALL, keys)
    with pytest.raises(CannotOpen, match="5 values instead of 6"):
        channel.open(iter(frames[::-1]), keys["silo-0"], Form(SMALL), 0)


@pytest.mark.parametrize("held", [{}, {"public": True}])
def test_without_the_secret_key_nothing_opens(channel, keys, held) -> None:
    frames = seal(channel, np.ones(SMALL.size), SMALL, keys)
    key = {"public": keys["server"]["public"]} if held else {}
    with pytest.raises(CannotOpen):
        channel.open(iter(frames), key, Form(SMALL), 0)


def test_what_cannot_be_encrypted_is_refused(channel, keys) -> None:
    values = np.ones(SMALL.size, np.float32)
    bad = [
        Update(np.where(np.arange(SMALL.size) == 3, np.nan, values), SMALL),
        Update(values, SMALL, grid=Grid(8, 1.0)),
        Update(values, SMALL, support=np.arange(SMALL.size)),
    ]
    for update in bad:
        with pytest.raises(SiloBenchError, match="CKKS channel"):
            list(channel.seal(update, keys["silo-0"], SECRET, 0))
