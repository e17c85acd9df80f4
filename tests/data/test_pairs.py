"""Training pairs: decided by the seed and the index alone, with the noise that was asked for."""

from itertools import chain, islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cdm4mi.config.schema import AugmentConfig
from cdm4mi.data.augment import draw_change
from cdm4mi.data.pairs import OrderedFrom, PairDataset, source_weights
from cdm4mi.data.patient import Patient
from cdm4mi.data.phantoms import phantom
from cdm4mi.degradation import Frame, GaussianNoise
from cdm4mi.degradation.noises.coloured import ColouredNoise
from cdm4mi.degradation.noises.identity import Identity
from cdm4mi.degradation.noises.pet import PetThinning
from cdm4mi.degradation.noises.rician import RicianNoise
from cdm4mi.degradation.noises.undersampled import Undersampled
from cdm4mi.errors import UserError


def patient(name, source="CT-a", size=40, count=2):
    images = [phantom("CT", hash_free(name, k), size).clip(-1000, 1000) / 1000 for k in range(count)]
    return Patient(name, source, [i.astype(np.float16) for i in images], [i > -0.5 for i in images])


def hash_free(name, k):
    return sum(map(ord, name)) * 10 + k


@pytest.fixture(scope="module")
def patients():
    return [patient("a"), patient("b", size=56), patient("c", "MR-b")]


def pairs(patients, seed=0, noise=(0.01, 0.2), **options):
    return PairDataset(patients, GaussianNoise(variance=noise), 32, seed, **options)


def equal(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def test_a_pair_depends_on_seed_and_index_alone(patients):
    dataset, again = pairs(patients), pairs(patients)
    expected = [dataset[i] for i in range(12)]
    assert all(equal(again[i], expected[i]) for i in reversed(range(12)))
    assert not equal(dataset[0], dataset[1])
    assert not equal(pairs(patients, seed=1)[0], expected[0])
    assert not equal(pairs(patients, validation=True)[0], expected[0])


@pytest.mark.parametrize(("workers", "batch"), [(0, 1), (0, 5), (2, 3)])
def test_any_workers_and_batch_size_give_the_same_pairs(patients, workers, batch):
    dataset = pairs(patients)
    loader = iter(DataLoader(dataset, batch, sampler=OrderedFrom(4), num_workers=workers))
    found = {k: torch.cat(v)[:6] for k, v in zip_dicts(next(loader) for _ in range(6)).items()}
    expected = {k: torch.stack(v) for k, v in zip_dicts(dataset[i] for i in range(4, 10)).items()}
    assert equal(found, expected)


def zip_dicts(dictionaries):
    listed = list(dictionaries)
    return {k: [d[k] for d in listed] for k in listed[0]}


def test_processes_share_the_order_without_overlap():
    taken = [list(islice(OrderedFrom(10 + rank, 3), 4)) for rank in range(3)]
    assert sorted(chain(*taken)) == list(range(10, 22))


@pytest.mark.parametrize("variance", [0.01, 0.2])
def test_noise_has_the_stated_variance_and_is_not_clipped(patients, variance):
    dataset = pairs(patients, noise=variance)
    drawn = zip_dicts(dataset[i] for i in range(200))
    noise = torch.stack(drawn["y"]) - torch.stack(drawn["x0"])
    assert float(noise.var()) == pytest.approx(variance, rel=0.01)
    assert abs(float(noise.mean())) < 0.01 * variance**0.5
    assert float(torch.stack(drawn["y"]).min()) < -1.1
    torch.testing.assert_close(torch.stack(drawn["sigma"]), torch.full((200,), variance**0.5))


def test_a_range_of_variances_is_uniform_in_the_logarithm_and_told(patients):
    dataset = pairs(patients, noise=(0.01, 0.16))
    drawn = zip_dicts(dataset[i] for i in range(400))
    level = torch.stack(drawn["sigma"])
    place = torch.log(level / 0.1) / np.log(4.0)
    assert 0 <= float(place.min()) < 0.02
    assert 0.98 < float(place.max()) <= 1
    assert float(place.mean()) == pytest.approx(0.5, abs=0.05)
    unit = (torch.stack(drawn["y"]) - torch.stack(drawn["x0"])) / level.reshape(-1, 1, 1, 1)
    assert float(unit.var()) == pytest.approx(1, rel=0.01)


def test_patches_are_cut_from_the_slices_turned_and_flipped(patients):
    image = np.arange(32 * 32, dtype=np.float16).reshape(32, 32) / 1024
    one = Patient("a", "CT-a", [image], [np.ones((32, 32), bool)])
    dataset = pairs([one])
    seen = {dataset[i]["x0"].numpy().tobytes() for i in range(80)}
    whole = image.astype(np.float32)
    turns = [np.rot90(flipped, k) for flipped in (whole, whole[:, ::-1]) for k in range(4)]
    assert seen == {np.ascontiguousarray(t).tobytes() for t in turns}


def test_patches_are_of_the_patient_and_not_of_air():
    mask = np.zeros((128, 128), bool)
    mask[:64] = True
    one = Patient("a", "CT-a", [np.where(mask, 0.5, -1).astype(np.float16)], [mask])
    share = [float((pairs([one], least_foreground=0.3)[i]["x0"] > 0).float().mean()) for i in range(60)]
    assert np.mean(np.array(share) >= 0.3) > 0.95


def test_modalities_share_evenly_and_large_collections_count_as_their_root():
    weights = dict(zip(["CT-a", "CT-b", "MR-c"], source_weights({"MR-c": 400, "CT-b": 9, "CT-a": 1}), strict=True))
    assert weights == pytest.approx({"CT-a": 0.125, "CT-b": 0.375, "MR-c": 0.5})


def test_sources_are_drawn_as_they_weigh():
    grey = {"a": -0.5, "b": 0.0, "c": 0.5}
    flat = [
        Patient(f"{n}{i}", s, [np.full((32, 32), grey[n], np.float16)], [np.ones((32, 32), bool)])
        for n, s, people in (("a", "CT-a", 1), ("b", "CT-b", 4), ("c", "MR-c", 16))
        for i in range(people)
    ]
    dataset = pairs(flat)
    found = np.array([float(dataset[i]["x0"][0, 0, 0]) for i in range(1500)])
    assert [np.mean(found == g) for g in grey.values()] == pytest.approx([1 / 6, 1 / 3, 1 / 2], abs=0.04)


def test_a_slice_smaller_than_the_patch_is_one_clear_line(patients):
    with pytest.raises(UserError, match="patient a: a slice is 40 x 40, expected at least image_size = 48"):
        PairDataset(patients, GaussianNoise(variance=0.1), 48, 0)


def mr(name="m", size=48, frames=None):
    images = [phantom("MR", hash_free(name, k), 64)[:size, :size] / 500 - 1 for k in range(3)]
    slices = [i.clip(-1, 1).astype(np.float16) for i in images]
    return Patient(name, "MR-a", slices, [i > -0.8 for i in images], frames=frames)


UNDERSAMPLED = Undersampled(acceleration=(2.0, 6.0))


def whole(degradation=None, patients=None, **options):
    return PairDataset(patients or [mr(), mr("n")], degradation or UNDERSAMPLED, 32, 3, **options)


@pytest.mark.parametrize(
    "degradation",
    [UNDERSAMPLED, RicianNoise(percent=(2.0, 9.0), variation=0.4), PetThinning(count_fraction=0.3)],
    ids=lambda noise: noise.type,
)
def test_noise_of_whole_slices_is_shared_by_a_block_and_cut(degradation):
    """16 pairs in a row: one slice and level, other places; x0 and y of a place fit together."""
    dataset = whole(degradation)
    block = [dataset[i] for i in range(16, 32)]
    assert len({float(pair["sigma"]) for pair in block}) == 1
    assert len({pair["x0"].numpy().tobytes() for pair in block}) > 8
    kept = dataset._slice(1)
    assert kept.x0.shape == kept.y.shape == (1, 48, 48)
    for pair in block[:4]:
        x0, y = (pair[key][0].numpy() for key in ("x0", "y"))
        found = [
            np.array_equal(whole_y[r : r + 32, c : c + 32], y)
            for turned in (0, 1, 2, 3)
            for flip in (False, True)
            for whole_x0, whole_y in [[turn_like(image[0].numpy(), turned, flip) for image in (kept.x0, kept.y)]]
            for r in range(17)
            for c in range(17)
            if np.array_equal(whole_x0[r : r + 32, c : c + 32], x0)
        ]
        assert any(found)
    assert not torch.equal(dataset[32]["sigma"], block[0]["sigma"]) or not isinstance(degradation, Undersampled)


def turn_like(image, quarter, flip):
    turned = np.rot90(image, quarter)
    return turned[:, ::-1] if flip else turned


def test_a_pair_of_a_block_depends_on_seed_and_index_alone():
    dataset = whole(acquisition=["noise_level"])
    expected = [dataset[i] for i in range(40)]
    again = whole(acquisition=["noise_level"])
    for i in (39, 0, 17, 16, 3, 38):
        assert equal(again[i], expected[i])
    loader = iter(DataLoader(whole(), 5, sampler=OrderedFrom(10), num_workers=2))
    found = {k: torch.cat(v)[:20] for k, v in zip_dicts(next(loader) for _ in range(4)).items()}
    assert equal(found, {k: torch.stack([e[k] for e in expected[10:30]]) for k in found})
    assert not equal(whole(validation=True, acquisition=["noise_level"])[0], expected[0])


def test_slices_take_turns_where_it_is_asked_for():
    """Four noisy slices of three patches each: a batch of four holds all of them, and none is made twice."""
    alone, mixed = whole(patches_per_slice=3), whole(patches_per_slice=3, slices_mixed=4)
    slices = [float(alone[3 * block]["sigma"]) for block in range(8)]
    assert len(set(slices)) == 8
    assert [float(mixed[i]["sigma"]) for i in range(24)] == 3 * slices[:4] + 3 * slices[4:]
    assert set(mixed._kept) == {4, 5, 6, 7}
    assert equal(mixed[23], whole(patches_per_slice=3, slices_mixed=4)[23])


def test_the_level_of_a_block_is_that_of_its_whole_slice():
    dataset = whole()
    kept = dataset._slice(0)
    assert float(dataset[0]["sigma"]) == pytest.approx(float((kept.y - kept.x0).square().mean().sqrt()))


@pytest.mark.parametrize(("asked", "together"), [(None, 1), (1, 1), (4, 4)])
def test_pairs_of_white_noise_share_a_slice_where_it_is_asked_for(patients, asked, together):
    dataset = pairs(patients, patches_per_slice=asked)
    levels = [float(dataset[i]["sigma"]) for i in range(12)]
    assert [levels[i] == levels[i + 1] for i in range(11)] == [(i + 1) % together != 0 for i in range(11)]


def test_units_follow_each_slice_of_a_patient():
    """Percent of the window's upper end, which two scans of one patient do not share: on [-1, 1] it is the same."""
    frames = [Frame(0.0, high, modality="MR") for high in (100.0, 900.0, 50.0)]
    dataset = whole(RicianNoise(percent=5.0), [mr(frames=frames)])
    assert [float(dataset[i]["sigma"]) for i in range(8)] == pytest.approx([0.1] * 8)
    frames = [Frame(-500.0, 1500.0, modality="CT")] * 3
    assert float(whole(GaussianNoise(sigma_hu=30.0), [mr(frames=frames)])[0]["sigma"]) == pytest.approx(0.03)


def real(patient, offset=0.25):
    patient.conditions = [image + np.float16(offset) for image in patient.slices]
    return patient


@pytest.mark.parametrize("together", [1, 4])
def test_real_noisy_slices_are_cut_at_the_same_place_and_their_level_measured(together):
    dataset = whole(Identity(), [real(mr()), real(mr("n"))], patches_per_slice=together)
    for i in range(12):
        pair = dataset[i]
        torch.testing.assert_close(pair["y"], pair["x0"] + 0.25, atol=2e-3, rtol=0)
        assert float(pair["sigma"]) == pytest.approx(0.25, abs=2e-3)
    assert len({dataset[i]["x0"].numpy().tobytes() for i in range(12)}) > 6


@pytest.mark.parametrize(
    ("degradation", "people", "said"),
    [
        (GaussianNoise(), [real(mr())], "data.noise.type: found gaussian with real noisy scans, expected identity"),
        (Identity(), [mr()], "data.noise.type: found identity without real noisy scans"),
        (Identity(), [mr(), real(mr("n"))], "found real noisy scans for some patients"),
        (
            RicianNoise(percent=5.0),
            [patient("a"), mr()],
            "data: patient a: noise rician: found a CT scan, expected MR or PT",
        ),
        (
            GaussianNoise(sigma_hu=30.0),
            [patient("a"), mr()],
            r"MR scan, expected CT \(a file that does not state",
        ),
    ],
)
def test_noise_that_does_not_fit_the_scans_is_one_clear_line(degradation, people, said):
    with pytest.raises(UserError, match=said):
        whole(degradation, people)


def test_a_told_level_is_wrong_by_the_jitter_and_nothing_else_changes(patients):
    exact, told = pairs(patients), pairs(patients, level_jitter=0.12)
    ratios = []
    for i in range(300):
        a, b = exact[i], told[i]
        assert torch.equal(a["x0"], b["x0"])
        assert torch.equal(a["y"], b["y"])
        ratios.append(float(b["sigma"] / a["sigma"]))
    logarithms = np.log(ratios)
    assert logarithms.std() == pytest.approx(0.12, rel=0.15)
    assert abs(logarithms.mean()) < 0.03
    assert equal(told[7], pairs(patients, level_jitter=0.12)[7])
    assert equal(pairs(patients, validation=True)[3], pairs(patients, validation=True, level_jitter=0.12)[3])


@pytest.mark.parametrize("whole", [None, 4])
def test_shrunk_patches_are_means_of_four_pixels_with_twice_the_spacing(whole):
    slices = [np.random.default_rng(k).uniform(-1, 1, (80, 72)).astype(np.float32) for k in range(2)]
    frames = [Frame(-1000.0, 1000.0, "CT", (0.5, 0.75))] * 2
    patient = Patient("a", "CT-a", slices, [s > -2 for s in slices], (2.0, 0.5, 0.75), frames)
    means = [torch.from_numpy(s.reshape(40, 2, 36, 2).mean((1, 3))) for s in slices]
    options = {"acquisition": ["pixel_spacing"], "patches_per_slice": whole}
    shares = {}
    for share in (0.0, 0.4, 1.0):
        augment = AugmentConfig(flip=False, rotation=0, shrink=share)
        found = [pairs([patient], noise=0.0, augment=augment, **options)[i] for i in range(60)]
        shrunk = [float(p["vector"]) == pytest.approx(np.log(1.0)) for p in found]
        shares[share] = np.mean(shrunk)
        for pair, small in zip(found, shrunk, strict=True):
            assert pair["x0"].shape == (1, 32, 32)
            assert torch.equal(pair["x0"], pair["y"])
            assert float(pair["vector"]) == pytest.approx(np.log(1.0 if small else 0.5))
    assert shares[0.0] == 0
    assert 0.1 < shares[0.4] < 0.7
    assert shares[1.0] == 1
    if whole:  # on the grid of the slice; a patch of its own begins anywhere
        windows = [m.unfold(0, 32, 1).unfold(1, 32, 1).reshape(-1, 32, 32) for m in means]
        errors = [min(float((w - p["x0"]).abs().amax((1, 2)).min()) for w in windows) for p in found]
        assert max(errors) < 1e-6


def test_a_slice_that_is_too_small_is_not_shrunk(patients):
    small = pairs(patients[:1], augment=AugmentConfig(shrink=1.0))  # 40 x 40 for patches of 32
    plain = pairs(patients[:1])
    assert small[0]["x0"].shape == plain[0]["x0"].shape


def test_curves_rise_fall_or_do_neither():
    curves = [
        draw_change(AugmentConfig(curve=1), np.random.default_rng(k), 64, modality="MR").curve for k in range(600)
    ]
    steps = np.diff([curve[1:] for curve in curves], axis=1)
    rising, falling = ((sign * steps > 0).all(1).mean() for sign in (1, -1))
    assert 0.3 < rising < 0.45 and 0.3 < falling < 0.45 and rising + falling < 0.8  # 1/3 + 1/72 each
    assert all(curve[0] == -1 and max(curve) == 1 for curve in curves)


def test_a_curve_changes_the_contrast_of_mr_alone(patients):
    """Air stays, equal values stay equal, and the brightest is what it was meant to be: at most 1."""
    changed, plain = (pairs(patients, augment=AugmentConfig(curve=share)) for share in (1.0, 0.0))
    seen = set()
    for i in range(40):
        a, b = changed[i]["x0"], plain[i]["x0"]
        if torch.equal(a, b):
            seen.add("same")
            continue
        seen.add("curve")
        assert float(a.abs().max()) <= 1
        assert bool((a[b == -1] == -1).all())
        values, where = b.unique(return_inverse=True)
        assert all(float(a[where == k].std(unbiased=False)) < 1e-6 for k in range(0, len(values), 37))
    assert seen == {"same", "curve"}


TEXTURED = ColouredNoise(spectrum="zero_filled", cutoff=0.25, variance=0.01, magnitude=0.5)


def test_the_texture_is_that_of_the_noise():
    """Correlations that are measured over many patches are those told; magnitudes are told apart."""
    people = [patient("c", "MR-b")]
    data = PairDataset(people, TEXTURED, 32, 0, texture=True)
    drawn = [data[i] for i in range(200)]
    signed = [pair for pair in drawn if pair["texture"][2] == 0]
    assert 70 < len(signed) < 130
    noise = torch.stack([pair["y"] - pair["x0"] for pair in signed])
    power = noise.square().mean((1, 2, 3))
    rows = (noise[:, :, 1:] * noise[:, :, :-1]).mean((1, 2, 3)) / power
    told = torch.stack([pair["texture"][0] for pair in signed])
    assert float((rows - told).abs().mean()) < 0.05
    assert float(told.std()) > 0.1  # a third each is filled along rows, columns, both
    air = [(pair["y"] - pair["x0"])[pair["x0"] < -0.99].mean() for pair in drawn if pair["texture"][2] == 1]
    assert float(torch.stack(air).nanmean()) > 0.05


def test_texture_is_told_wrong_by_the_jitter_in_training_alone():
    people = [patient("c", "MR-b")]
    exact, jittered, validated = (
        torch.stack([PairDataset(people, TEXTURED, 32, 0, texture=True, **options)[i]["texture"] for i in range(150)])
        for options in ({}, {"texture_jitter": 0.1}, {"texture_jitter": 0.1, "validation": True})
    )
    assert float((jittered - exact)[:, :2].std()) == pytest.approx(0.1, rel=0.15)
    assert 5 <= int((jittered[:, 2] != exact[:, 2]).sum()) <= 27
    assert set(validated[:, 2].tolist()) == {0.0, 1.0}
    told = PairDataset(people, TEXTURED, 32, 0, texture=True, validation=True)
    assert all(torch.equal(validated[i], told[i]["texture"]) for i in range(10))
    assert "texture" not in PairDataset(people, TEXTURED, 32, 0)[0]


VARYING = ColouredNoise(spectrum="white", variance=0.01, variation=0.6)


@pytest.mark.parametrize("together", [None, 8])
def test_the_relative_level_is_that_of_the_noise(together):
    """Noise over its level is of unit variance wherever the level is high or low; of some pairs none is given."""
    options = {"level_map_share": 0.6, "patches_per_slice": together}
    data = PairDataset([patient("c", "MR-b", 80)], VARYING, 32, 0, **options)
    drawn = [data[i] for i in range(160)]
    mapped = [pair for pair in drawn if pair["relative_level"].std() > 0]
    assert 70 < len(mapped) < 122
    assert all((pair["relative_level"] == 1).all() for pair in drawn if pair["relative_level"].std() == 0)
    relative = torch.stack([pair["relative_level"] for pair in mapped])
    unit = torch.stack([(pair["y"] - pair["x0"]) / pair["sigma"] for pair in mapped])
    for low, high in ((0.3, 0.7), (0.7, 1.1), (1.1, 1.6)):
        here = (relative > low) & (relative < high)
        assert float((unit / relative)[here].std()) == pytest.approx(1.0, abs=0.03)
    assert float(unit[relative > 1.3].std()) > 1.3
    assert "relative_level" not in PairDataset([patient("c", "MR-b", 80)], VARYING, 32, 0)[0]


def test_the_relative_level_is_wrong_in_training_alone():
    def relative(**options):
        data = PairDataset([patient("c", "MR-b", 80)], VARYING, 32, 0, level_map_share=1.0, **options)
        return torch.stack([data[i]["relative_level"] for i in range(60)])

    errors = torch.log(relative(level_jitter=0.1) / relative())
    assert 0.02 < float(errors.std()) < 0.1 and float(errors.abs().max()) < 0.25
    validated = relative(level_jitter=0.1, validation=True)
    assert torch.equal(validated, relative(validation=True))


def test_a_patch_of_a_whole_slice_has_the_correlations_of_its_own_turn():
    """Zero-filling along one axis alone: a quarter turn changes the axis along which neighbours are alike."""
    noise = ColouredNoise(spectrum="zero_filled", cutoff=0.25, variance=0.01)
    data = PairDataset([patient("c", "MR-b")], noise, 32, 0, patches_per_slice=8, texture=True)
    for i in range(24):
        pair = data[i]
        difference = (pair["y"] - pair["x0"])[0]
        rows = (difference[1:] * difference[:-1]).mean() / difference.square().mean()
        assert float(pair["texture"][0]) == pytest.approx(float(rows), abs=1e-4)


@pytest.mark.parametrize("magnitude", [0.0, 1.0])
def test_the_clean_patch_has_no_detail_that_zero_filling_leaves_out(magnitude):
    noise = ColouredNoise(spectrum="zero_filled", cutoff=0.25, variance=1e-6, magnitude=magnitude)
    full, filled = (PairDataset([patient("c", "MR-b", 80)], n, 64, 0) for n in (GaussianNoise(variance=1e-6), noise))
    power = np.mean(
        [np.abs(np.fft.fft2(filled[i]["x0"][0] * np.hanning(64) * np.hanning(64)[:, None])) ** 2 for i in range(24)], 0
    )
    beyond = np.abs(np.fft.fftfreq(64)) > 0.3
    assert power[np.ix_(beyond, beyond)].mean() < 1e-3 * power.mean()  # the corner that no draw measures
    assert torch.equal(
        full[0]["x0"], PairDataset([patient("c", "MR-b", 80)], GaussianNoise(variance=0.1), 64, 0)[0]["x0"]
    )
    assert all(float((filled[i]["y"] - filled[i]["x0"]).abs().max()) < 0.01 for i in range(24))
