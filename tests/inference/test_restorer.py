"""Restorer: what a volume's owner relies on - same seed same result, units, sizes, what is kept, what is recorded."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cdm4mi import io
from cdm4mi.config import parse_config
from cdm4mi.config.schema import SamplingConfig
from cdm4mi.data.phantoms import phantom
from cdm4mi.degradation.noises.coloured import ColouredNoise
from cdm4mi.diffusion.paths import broadcast
from cdm4mi.errors import UserError
from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.inference.strength import weakened
from cdm4mi.io import Volume
from cdm4mi.io.volume import Source
from cdm4mi.measure.noise_level import estimate_noise
from cdm4mi.models import build_network, build_process
from cdm4mi.models.checkpoint import TrainedModel, load_model
from cdm4mi.window import IntensityWindow

HU = 1000.0  # half of the CT window: one unit of the inside


def ct(rows=67, columns=93, slices=3, sigma=150.0, first=50):
    """(clean, noisy volume) of CT phantoms, in HU."""
    clean = np.stack([phantom("CT", first + k, max(rows, columns, 32))[:rows, :columns] for k in range(slices)])
    noise = np.random.default_rng(first).standard_normal(clean.shape)
    return clean, Volume((clean + sigma * noise).astype(np.float32), np.diag([0.7, 0.7, 3.0, 1.0]), "CT")


def rmse(a, b):
    return float(np.sqrt(np.mean((np.clip(a, -HU, HU) - np.clip(b, -HU, HU)) ** 2)))


def asked(model, **changes):
    return Restorer(model, SamplingConfig(**(model.config.sampling.model_dump() | changes)))


@pytest.fixture(scope="module")
def eps_model():
    """A model of the mission's kind (eps, linear), untrained: for what does not depend on the weights."""
    torch.manual_seed(0)
    unet = {"channel": 32, "channel_multiplier": [1, 2], "n_res_blocks": 1, "attn_strides": [], "dropout": 0.0}
    config = parse_config({"model": {"image_size": 32, "timesteps": 20, "unet_rosinality_config": unet}})
    return TrainedModel(build_network(config.model).eval(), build_process(config.model), config, name="eps")


def calls_of(restorer, volume, **options):
    """Forward passes of the network, and the record."""
    passes = []
    handle = restorer.slices.network.register_forward_hook(lambda *_: passes.append(1))
    record = restorer.restore(volume, **options).record
    handle.remove()
    return len(passes), record


def test_it_denoises_in_the_scans_own_units(tiny):
    clean, noisy = ct()
    out = Restorer(tiny).restore(noisy)
    assert out.volume.array.shape == noisy.array.shape
    assert np.array_equal(out.volume.affine, noisy.affine)
    assert rmse(out.volume.array, clean) < 0.75 * rmse(noisy.array, clean)


@pytest.mark.parametrize("rows, columns", [(67, 93), (20, 25), (5, 70), (32, 32), (4, 33)])
def test_any_size_works_by_padding(tiny, rows, columns):
    clean, noisy = ct(rows, columns, slices=2)
    out = Restorer(tiny).restore(noisy, noise=150.0).volume.array
    assert out.shape == clean.shape
    assert np.isfinite(out).all()
    if min(rows, columns) > 32:
        for edge in (np.s_[:, -8:], np.s_[:, :, -8:], np.s_[:, :8], np.s_[:, :, :8]):
            assert rmse(out[edge], clean[edge]) < rmse(noisy.array[edge], clean[edge])


@pytest.mark.parametrize("rows, columns", [(1, 64), (64, 1), (3, 50)])
def test_slices_thinner_than_the_networks_grid_are_refused(tiny, rows, columns):
    with pytest.raises(UserError, match=f"{rows} x {columns} pixels, expected at least 4 x 4"):
        Restorer(tiny).restore(Volume(np.zeros((2, rows, columns)), np.eye(4), "CT"))


@pytest.mark.parametrize("estimate", ["mean", "sample", "mean-of-k"])
def test_same_seed_same_result_whatever_the_batch(tiny, estimate):
    _, noisy = ct(34, 30, slices=8)
    restorer = asked(tiny, estimate=estimate, steps=2, samples=2)
    results = [restorer.restore(noisy, seed=5, batch=batch).volume.array for batch in (1, 3, 8)]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=0, atol=1e-4 * HU)
    again = restorer.restore(noisy, seed=5, batch=3).volume.array
    np.testing.assert_array_equal(again, results[1])


def test_slices_restored_alone_and_together_are_the_same_and_another_seed_is_another_sample(tiny):
    _, noisy = ct(40, 36, slices=4)
    y = noisy.array / HU
    restorer = asked(tiny, estimate="sample", steps=3)
    together = restorer.slices.restore(y, 0.15, seed=2)
    alone = restorer.slices.restore(y[3:], 0.15, seed=2, indices=[3])
    np.testing.assert_allclose(alone[0], together[3], rtol=0, atol=1e-4)
    # the draws differ between slices and between seeds, by something like the noise that the scan leaves open
    other = restorer.slices.restore(y, 0.15, seed=3)
    assert np.std(other - together) > 0.01
    first = restorer.slices.restore(y[:1].repeat(2, 0), 0.15, seed=2)
    assert np.std(first[0] - first[1]) > 0.01


def test_mean_of_k_is_the_mean_of_its_samples(tiny):
    _, noisy = ct(32, 32, slices=1)
    y = noisy.array / HU

    def moments(k, seed=4):
        return asked(tiny, estimate="mean-of-k", samples=k, steps=2).slices.moments(y, 0.15, seed=seed)

    first = asked(tiny, estimate="sample", steps=2).slices.restore(y, 0.15, seed=4)
    np.testing.assert_allclose(moments(1)[0], first, rtol=0, atol=1e-6)
    mean, spread = moments(2)
    second = 2 * mean - first
    np.testing.assert_allclose(spread, np.abs(second - first) / 2, rtol=0, atol=1e-5)
    assert np.std(second - first) > 0.01
    # the samples of the next seed are others, not these one further on
    assert np.std(moments(1, seed=5)[0] - second) > 0.01


def test_the_spread_of_pairs_is_a_samples_and_their_mean_nearly_exact(prior):
    """y = x0 + noise of 0.15, x0 of 0.3: the posterior has the standard deviation 0.3 sqrt(0.2)."""
    y = 0.3 * np.random.default_rng(1).standard_normal((1, 64, 64))
    sampling = {"estimate": "mean-of-k", "solver": "ddpm", "steps": 1000, "spacing": "linspace", "clip": False}
    for k in (2, 5, 8):
        mean, spread = asked(prior, **sampling, tile=64, samples=k).slices.moments(y, 0.15)
        assert np.sqrt(np.mean(spread**2)) == pytest.approx(0.3 * 0.2**0.5, rel=0.05)
        if k % 2 == 0:  # the next time's noise is a little above that of y
            np.testing.assert_allclose(mean, 0.8 * y, atol=0.01)


@pytest.mark.parametrize("modality, said", [("PT", True), ("CR", True), ("CT", False)])
def test_a_modality_that_the_model_has_not_seen_is_said_and_not_calibrated(modality, said):
    _, noisy = ct(48, 48, slices=1)
    scan = Volume(noisy.array + 1000, noisy.affine, modality) if modality != "CT" else noisy
    shipped = load_model()
    sampling = changed(shipped.config.sampling, estimate="mean-of-k", samples=2, steps=1)
    record = Restorer(shipped, sampling).restore(scan).record
    assert any("no scan of this modality" in warning for warning in record.warnings) == said
    if said:
        assert not record.uncertainty.calibrated
    assert modality == "CR" or not record.noise_level.magnitude


@pytest.mark.parametrize(
    "changes, calls",
    [
        ({"estimate": "mean"}, 1),
        ({"estimate": "sample", "steps": 7}, 7),
        ({"estimate": "sample", "steps": 3, "solver": "ddpm"}, 3),
        ({"estimate": "mean-of-k", "steps": 3, "samples": 4}, 12),
        ({"estimate": "sample", "steps": 4, "solver": "heun"}, 7),
        ({"estimate": "sample", "steps": 5, "solver": "unipc_3", "spacing": "karras"}, 5),
        ({"estimate": "mean-of-k", "steps": 3, "samples": 2, "start_from": "y"}, 6),
        ({"estimate": "mean", "orientations": 2}, 2),
        ({"estimate": "mean-of-k", "steps": 3, "samples": 2, "orientations": 4}, 24),
    ],
)
def test_network_calls_are_what_was_asked_for_and_recorded(tiny, changes, calls):
    _, noisy = ct(32, 32, slices=1)
    passes, record = calls_of(asked(tiny, **changes), noisy)
    assert passes == record.network_calls == calls


def test_eps_has_no_one_call_mean_so_samples_are_averaged(eps_model):
    _, noisy = ct(32, 32, slices=1)
    restorer = asked(eps_model, estimate="mean", steps=2, samples=3)
    passes, record = calls_of(restorer, noisy)
    assert passes == record.network_calls == 6
    assert record.settings["estimate"] == "mean-of-k"


def test_steps_beyond_the_models_times_are_refused_but_a_default_is_fitted(eps_model):
    assert eps_model.config.sampling.steps > 20
    assert Restorer(eps_model).slices.sampler.steps == 20
    with pytest.raises(UserError, match="`steps`: found 21, expected 1 to 20"):
        asked(eps_model, steps=21)


def test_a_sample_from_the_noisy_scan_starts_where_the_path_is_three_times_as_noisy(tiny):
    _, noisy = ct(48, 48, slices=1)
    path = tiny.process.path
    restorer = asked(tiny, estimate="sample", steps=4, start_from="y", spacing="linspace")
    states = []
    restorer.slices.restore(noisy.array / HU, 0.15, hook=states.append)
    a, _, c = path.at(states[0].t)
    below = path.at(states[0].t - 1)
    assert float(c / a) >= 0.45 > float(below.c / below.a)
    assert [s.t for s in states] == restorer.slices.sampler.times(0.15)
    # what the start holds is the scan, and the noise that it lacks
    beside = states[0].x_t[0, 0].numpy() - float(a) * noisy.array[0] / HU
    assert np.std(beside) == pytest.approx(np.sqrt(float(c) ** 2 - (float(a) * 0.15) ** 2), rel=0.05)
    # no lower than the scan's own noise, whatever is asked for
    asked_low = asked(tiny, estimate="sample", start_from="y", start_level=0.01)
    assert (
        asked_low.slices.sampler.times(0.15)[0]
        == asked(tiny, estimate="sample", start_from="y", start_level=0.15).slices.sampler.times(0.15)[0]
    )


def test_fewer_times_than_steps_below_the_start_are_each_visited_once(tiny):
    _, noisy = ct(32, 32, slices=1, sigma=100.0)
    restorer = asked(tiny, estimate="sample", steps=90, start_from="y")
    passes, record = calls_of(restorer, noisy, noise=100.0)
    times = restorer.slices.sampler.times(0.1)
    assert times == list(range(len(times)))[::-1] and len(times) < 90
    assert passes == record.network_calls == record.settings["steps"] == len(times)


def test_from_the_scan_as_from_noise_it_denoises(tiny):
    clean, noisy = ct()
    out = asked(tiny, estimate="mean-of-k", samples=4, steps=6, start_from="y").restore(noisy, noise=150.0)
    assert rmse(out.volume.array, clean) < 0.8 * rmse(noisy.array, clean)


class GaussianPrior(torch.nn.Module):
    """The exact eps for independent pixels of standard deviation ``spread``, in the place of a UNet that sees x_t."""

    size_multiple = 1

    def __init__(self, path, spread):
        super().__init__()
        self.path, self.spread = path, spread

    def forward(self, x, t, **_):
        a, _, c = (broadcast(value, x) for value in self.path.at(t))
        return c * x / (a**2 * self.spread**2 + c**2)


@pytest.fixture
def prior():
    """An unconditional model whose answers are exact: x0 of standard deviation 0.3."""
    config = parse_config({"model": {"conditioning_key": "none", "unet_rosinality_config": {"in_channel": 1}}})
    process = build_process(config.model)
    network = build_network(config.model)
    network.diffusion_model = GaussianPrior(process.path, 0.3)
    return TrainedModel(network, process, config, name="prior")


def test_an_unconditional_model_samples_the_posterior(prior):
    """y = x0 + noise, of 0.3 and 0.15: mean 0.8 y, variance 0.3^2 0.2; a sample doubles the mean's error."""
    rng = np.random.default_rng(0)
    x0 = 0.3 * rng.standard_normal((2, 128, 128))
    y = x0 + 0.15 * rng.standard_normal(x0.shape)
    sampling = {"clip": False, "tile": 128, "solver": "ddpm", "steps": 1000, "spacing": "linspace"}
    one_call = asked(prior, **sampling, estimate="mean").slices.restore(y, 0.15)
    np.testing.assert_allclose(one_call, 0.8 * y, atol=0.03)  # the next time adds a little noise
    least = 0.3**2 * 0.2
    restorer = asked(prior, **sampling, estimate="sample")
    drawn = restorer.slices.restore(y, 0.15)
    assert np.mean((drawn - x0) ** 2) == pytest.approx(2 * least, rel=0.05)
    assert drawn.std() == pytest.approx(0.3, rel=0.02)
    a, _, c = prior.process.path.at(restorer.slices.sampler.times(0.15)[0])
    assert float(c / a) == pytest.approx(0.15, rel=0.05)


@pytest.mark.parametrize("estimate, steps", [("sample", 5), ("mean-of-k", 5), ("mean", 1)])
def test_hook_receives_every_step(tiny, estimate, steps):
    _, noisy = ct(38, 35, slices=2)
    states = []
    restorer = asked(tiny, estimate=estimate, steps=5, samples=2)
    out = restorer.slices.restore(noisy.array / HU, 0.15, hook=states.append)
    assert [s.i for s in states] == list(range(steps))
    assert [s.t for s in states] == (restorer.slices.sampler.times(0.15) if steps > 1 else [99])
    for state in states:
        assert state.x_t.shape == state.x0_hat.shape == (2, 1, 40, 36)  # padded to multiples of 4
        assert torch.isfinite(state.x_t).all()
    assert not any(torch.equal(a.x_t, b.x_t) for a, b in pairwise(states))
    if estimate != "mean-of-k":
        np.testing.assert_array_equal(states[-1].x0_hat[:, 0, :38, :35].numpy(), out)


def test_metal_and_padding_are_taken_from_the_input_and_counted(tiny):
    _, noisy = ct(48, 48, slices=2, sigma=100.0)
    noisy.array[0, 10:14, 20:24] = 6000.0
    noisy.padding = np.zeros(noisy.array.shape, bool)
    noisy.padding[:, :, :6] = True
    noisy.array[noisy.padding] = -2000.0
    kept = noisy.padding | (noisy.array == 6000.0)
    out = Restorer(tiny).restore(noisy, noise=100.0)
    np.testing.assert_array_equal(out.volume.array[kept], noisy.array[kept])
    assert out.record.left_as_found_fraction == pytest.approx(kept.mean())
    # beside the metal nothing is torn along
    assert np.abs(out.volume.array[~kept]).max() < 1500


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_tissue_brighter_than_the_window_is_restored_and_stays_as_bright(tiny, modality):
    clean, _ = ct(64, 64, slices=1)
    array = clean + (1000.0 if modality == "MR" else 0.0)
    low, high = (0.0, 2000.0) if modality == "MR" else (-1000.0, 1000.0)
    array[0, 20:44, 20:44] = high + 700.0
    array[0, 30:32, 30:32] = high + 1500.0
    noisy = array + 100.0 * np.random.default_rng(2).standard_normal(array.shape)
    volume = Volume(noisy.astype(np.float32), np.eye(4), modality)
    out = Restorer(tiny).restore(volume, noise=100.0, normalisation=IntensityWindow(low, high, modality))
    plateau = np.zeros(array.shape, bool)
    plateau[0, 22:42, 22:42] = True
    plateau[0, 28:34, 28:34] = False
    error = (out.volume.array - array)[plateau]
    assert error.std() < 75.0 and abs(error.mean()) < 20.0
    assert out.volume.array[0, 30:32, 30:32].mean() == pytest.approx(high + 1500.0, abs=150.0)
    assert not np.any(out.volume.array == noisy)  # nothing passes as it was


@pytest.mark.parametrize("estimate", ["mean", "mean-of-k"])
def test_strength_puts_back_what_was_taken_away(tiny, estimate):
    _, noisy = ct(32, 32, slices=2, sigma=150.0)
    settings = {"estimate": estimate, "samples": 2, "steps": 2}
    none, half, full = (asked(tiny, **settings, strength=s).restore(noisy, noise=150.0) for s in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(none.volume.array, noisy.array, atol=0.01)
    assert half.record.settings["strength"] == 0.5
    if estimate == "mean":
        expected = weakened(full.volume.array, noisy.array, 0.5)
        np.testing.assert_allclose(half.volume.array, expected, atol=0.05)
    else:  # every sample is weakened, and so they are closer together
        np.testing.assert_allclose(none.spread.array, 0, atol=1e-3)
        assert 0 < half.spread.array.mean() < full.spread.array.mean()


def test_a_scan_quieter_than_the_model_knows_comes_back_nearly_as_it_was(tiny):
    _, noisy = ct(32, 32, slices=1, sigma=5.0)
    least, quiet = (Restorer(tiny).restore(noisy, noise=n) for n in (80.0, 8.0))
    taken, less = (out.volume.array - noisy.array for out in (least, quiet))
    np.testing.assert_allclose(less, 0.01 * taken, atol=0.01)
    assert "1% of what that takes away is taken away" in quiet.record.warnings[0]


def test_noise_level_is_measured_and_used(tiny):
    _, noisy = ct(96, 96, sigma=180.0)
    level = Restorer(tiny).restore(noisy).record.noise_level
    assert level.estimated
    assert level.value == pytest.approx(180, rel=0.15)
    assert level.used == level.value
    given = Restorer(tiny).restore(noisy, noise=120.0)
    assert (given.record.noise_level.estimated, given.record.noise_level.used) == (False, pytest.approx(120))
    assert given.record.warnings == []


@pytest.mark.parametrize("settings", [{}, {"start_from": "y", "estimate": "sample", "steps": 4}])
def test_slices_of_unequal_noise_are_each_restored_with_their_level(tiny, settings):
    """What a slice becomes is what it becomes alone, with its level given; the quietest is under the training's."""
    sigmas = np.array([40.0, 120.0, 240.0])
    clean, _ = ct(96, 96)
    noise = sigmas[:, None, None] * np.random.default_rng(0).standard_normal(clean.shape)
    noisy = Volume((clean + noise).astype(np.float32), np.eye(4), "CT")
    restorer = asked(tiny, **settings)
    out, pairs = restorer.restore(noisy, batch=1), restorer.restore(noisy, batch=2)
    np.testing.assert_allclose(out.volume.array, pairs.volume.array, atol=0.02)
    levels = estimate_noise(noisy.array).by_slice
    assert levels == pytest.approx(sigmas, rel=0.15)
    for k, level in enumerate(levels):  # the others stay in the scan: the seed counts slices
        alone = restorer.restore(noisy, noise=float(level)).volume.array[k]
        np.testing.assert_allclose(out.volume.array[k], alone, atol=0.02)
    record = out.record.noise_level
    assert (record.least, record.most) == pytest.approx((levels.min(), levels.max()))
    assert record.value == pytest.approx(np.sqrt(np.mean(levels**2)))
    assert len(out.record.warnings) == 1
    assert "80 is used in 1 of 3 slices" in out.record.warnings[0]


@pytest.mark.parametrize("level, used", [(1000.0, 300.0), (20.0, 80.0), (0.0, 80.0)])
def test_noise_outside_the_training_range_is_said(tiny, level, used):
    _, noisy = ct(32, 32, slices=1)
    record = Restorer(tiny).restore(noisy, noise=level).record
    assert record.noise_level.used == pytest.approx(used)
    assert "training range 80 to 300" in record.warnings[0]


@pytest.mark.parametrize("level", [-1.0, float("nan"), float("inf")])
def test_impossible_noise_levels_are_refused(tiny, level):
    _, noisy = ct(32, 32, slices=1)
    with pytest.raises(UserError, match=f"`noise`: found {level}"):
        Restorer(tiny).restore(noisy, noise=level)
    with pytest.raises(UserError, match="`seed`: found -1"):
        Restorer(tiny).restore(noisy, seed=-1)


def test_the_record_describes_the_noise(tiny):
    """Magnitudes are measured in the scan's units, where their zero is; noise unlike that of training is a warning."""
    clean = np.zeros((2, 128, 128))
    clean[:, 24:104, 24:104] = [phantom("MR", k, 80) for k in (1, 2)]
    rng = np.random.default_rng(0)
    white = np.hypot(clean + 60 * rng.standard_normal(clean.shape), 60 * rng.standard_normal(clean.shape))
    record = Restorer(tiny).restore(Volume(white, np.eye(4), "MR")).record
    assert record.noise_level.value == pytest.approx(60, rel=0.08)
    assert (record.noise_level.magnitude, record.noise_level.varying) == (True, False)
    assert not any("correlates" in warning for warning in record.warnings)
    smooth = gaussian_filter(rng.standard_normal(clean.shape), (0, 0.8, 0.8))
    correlated = Volume(clean + 60 * smooth / smooth.std(), np.eye(4), "MR")
    record = Restorer(tiny).restore(correlated).record
    assert record.noise_level.correlations == pytest.approx([0.67, 0.67], abs=0.2)
    assert any("correlates" in warning and "in the model's training by 0.00" in warning for warning in record.warnings)
    tiny.config.data.noise = ColouredNoise(spectrum="smoothed", smoothing=[0.3, 1.0], variance=[0.0064, 0.09])
    record = Restorer(tiny).restore(correlated).record
    assert not any("correlates" in warning for warning in record.warnings)


def test_units_of_the_scanner_do_not_matter_for_mr(tiny):
    """The same MR image in other scanner units is the same restoration in those units."""
    clean = np.stack([phantom("MR", k, 64) for k in (1, 2)])
    noisy = (clean + 60 * np.random.default_rng(0).standard_normal(clean.shape)).astype(np.float32)
    one, many = (Restorer(tiny).restore(Volume(noisy * f, np.eye(4), "MR")) for f in (1.0, 37.0))
    np.testing.assert_allclose(many.volume.array / 37, one.volume.array, rtol=0, atol=0.05)
    assert many.record.noise_level.value == pytest.approx(37 * one.record.noise_level.value, rel=1e-4)


def test_patches_of_integers_keep_the_range_of_training(tiny):
    """A dark patch stays dark: a model trained on 0 .. 255 is not shown each patch in a window of its own."""
    tiny.config.data.kind = "hdf5"
    dark = np.full((1, 32, 32), 20.0) + np.random.default_rng(0).standard_normal((1, 32, 32))
    volume = Volume(dark, np.eye(4), None, Source("hdf5"))
    assert Restorer(tiny).restore(volume).record.normalisation == IntensityWindow(0.0, 255.0, "MR")


@pytest.mark.parametrize(
    ("modality", "dtype", "intercept", "quantity", "least"),
    [
        ("MR", np.uint16, 0.0, "", 0.0),
        ("PT", np.float32, 0.0, "", 0.0),
        ("CT", np.uint16, -1024.0, "", -1024.0),
        ("CT", np.int16, 0.0, "", None),
        ("MR", np.int16, 0.0, "phase", None),
    ],
)
def test_magnitudes_and_unsigned_numbers_stay_so(
    modality, dtype, intercept, quantity, least, tiny, monkeypatch, tmp_path
):
    values = np.random.default_rng(0).integers(0, 400, (2, 32, 32)) + intercept
    source = Source("", dtype=np.dtype(dtype), intercept=intercept)
    scan = Volume(values, np.eye(4), modality, source, quantity=quantity)
    monkeypatch.setattr(SliceRestorer, "moments", lambda self, y, *_, **__: (y[:, :1] - 0.1, 0 * y[:, :1]))
    volume = Restorer(tiny).restore(scan, noise=20.0).volume
    if least is None:
        assert volume.array.min() < min(0, intercept)
        return
    assert volume.array.min() == least and (volume.array == least).mean() < 0.9
    io.write(volume, tmp_path / "out.nii")
    assert io.read(tmp_path / "out.nii").source.dtype == dtype
