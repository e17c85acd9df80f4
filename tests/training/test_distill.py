"""Distillation: what a target is where the posterior is known, and a student that a user can train and denoise with."""

import math

import numpy as np
import pytest
import torch

from cdm4mi import io
from cdm4mi.config import parse_config
from cdm4mi.data.phantoms import phantom
from cdm4mi.diffusion import make_solver, sample
from cdm4mi.diffusion.paths import broadcast
from cdm4mi.errors import UserError
from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.models import build_process
from cdm4mi.models.checkpoint import TrainedModel, load_model, save_model
from cdm4mi.models.facts import facts_of
from cdm4mi.training.distill import DistilledDDPM, distill, student_config
from cdm4mi.training.teacher import Teacher

LEVEL, PRIOR, MEAN = 0.25, 0.15, 0.2  # y = x0 + LEVEL noise, x0 ~ N(MEAN, PRIOR^2)
VARIANCE = 1 / (1 / LEVEL**2 + 1 / PRIOR**2)  # of x0 given y


def posterior_mean(y):
    return VARIANCE * (y / LEVEL**2 + MEAN / PRIOR**2)


class Exact(torch.nn.Module):
    """Stands for a perfectly trained network: gives the F of ``estimate(x_t / a, sigma, y)``."""

    def __init__(self, path, estimate):
        super().__init__()
        self.path, self.estimate = path, estimate

    def forward(self, fused, t, cond):
        a, _, c = (broadcast(v, fused) for v in self.path.at(t))
        sigma = c / a
        weight = LEVEL**2 / (sigma**2 + LEVEL**2)
        latent = cond.image + (fused - cond.image) / weight
        return (self.estimate(latent, sigma, cond.image) - fused) / (sigma * weight**0.5)


def bayes(latent, sigma, y):
    """E[x0 | x_t, y]: both are Gaussian views of x0."""
    known = 1 / VARIANCE + 1 / sigma**2
    return (posterior_mean(y) / VARIANCE + latent / sigma**2) / known


@pytest.fixture(scope="module")
def teacher():
    model = {"path": "residual", "sigma_max": 20.0}
    config = parse_config({"model": model, "sampling": {"clip": False}})
    process = build_process(config.model)
    return TrainedModel(Exact(process.path, bayes), process, config, name="exact")


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    y = MEAN + math.hypot(PRIOR, LEVEL) * torch.randn(4, 1, 64, 64, generator=generator)
    return {"y": y, "x0": y, "sigma": torch.full((4,), LEVEL)}, torch.randn(y.shape, generator=generator)


def spread_of(target, batch, noise):
    """What the image at the end holds of the noise that names it, beside the posterior's mean."""
    return float(((target.end - posterior_mean(batch["y"])) * noise).mean() / (noise**2).mean())


@pytest.mark.parametrize(("steps", "tolerance"), [(5, 0.25), (10, 0.03), (300, 0.003)])
def test_the_target_is_the_posterior_sample_that_the_noise_names(teacher, pairs, steps, tolerance):
    batch, noise = pairs
    target = Teacher(teacher, steps)(teacher.process.condition(batch["y"], batch["sigma"]), noise)
    spread = spread_of(target, batch, noise)
    torch.testing.assert_close(target.end, posterior_mean(batch["y"]) + spread * noise, atol=8e-3, rtol=0)
    torch.testing.assert_close(target.first, posterior_mean(batch["y"]), atol=8e-3, rtol=0)
    assert spread == pytest.approx(VARIANCE**0.5, rel=tolerance)


def test_a_student_that_knows_the_map_has_no_loss_and_samples_it_in_two_calls(teacher, pairs):
    batch, noise = pairs
    guide, times = Teacher(teacher, 10), [999, 600]
    taught = guide(teacher.process.condition(batch["y"], batch["sigma"]), noise)
    spread = spread_of(taught, batch, noise)

    def student(latent, sigma, y):
        mean = posterior_mean(y)
        sample = mean + spread * (latent - mean) / sigma
        return torch.where(sigma > 19, bayes(latent, sigma, y), sample)

    network = Exact(teacher.process.path, student)
    module = DistilledDDPM(teacher.config, network, guide, times)
    t = torch.tensor([999, 600, 600, 999])
    ignorant = DistilledDDPM(teacher.config, teacher.network, guide, times)
    loss, before = module.losses(batch, t, noise), ignorant.losses(batch, t, noise)
    assert float(loss.max()) < 1e-3 < 0.05 < float(before[1:3].min())
    assert float(before[[0, 3]].max()) < 1e-6  # the first call is the teacher's already
    model = TrainedModel(network, teacher.process, teacher.config, name="student")
    end = sample(
        model.process.denoiser(network, model.process.condition(batch["y"], batch["sigma"])),
        teacher.process.path,
        times,
        make_solver("ddim"),
        taught.start,
        noise=lambda _: noise,
    )
    torch.testing.assert_close(end, taught.end, atol=2e-2, rtol=0)


def clean_scan():
    return np.stack([phantom("CT", 40 + k, 64) for k in range(2)])


def noisy_scan():
    noise = np.random.default_rng(1).standard_normal((2, 64, 64))
    return (clean_scan() + 180 * noise).astype(np.float32)


@pytest.fixture(scope="module")
def student(trained_run, tmp_path_factory):
    """(folder, path of the last checkpoint) of a student of the tiny model."""
    out = tmp_path_factory.mktemp("student")
    model = load_model(trained_run)
    config = student_config(model, 60, 2, ["learning_rate=2e-3"])
    return out, distill(model, out, config, teacher_steps=4, progress=False)


def test_a_student_samples_in_two_calls_nearer_its_teacher_than_the_teacher_does(trained_run, student):
    teacher, fast = load_model(trained_run), load_model(student[1])
    y = noisy_scan() / 1000

    def drawn(model, **settings):
        chosen = model.config.sampling.model_copy(update={"estimate": "sample", "eta": 0.0, **settings})
        return SliceRestorer(model, chosen).restore(y, 0.18, seed=3)

    taught = drawn(teacher, solver="dpmpp_2m", steps=4, spacing="logsnr")
    own = drawn(teacher, solver="dpmpp_2m", steps=2, spacing="logsnr")
    same = drawn(teacher, times=fast.config.sampling.times)
    two = drawn(fast)
    assert SliceRestorer(fast).sampler.network_calls(0.18) == 2
    error = np.square(two - taught).mean()
    assert error < 0.75 * np.square(own - taught).mean() and error < 0.75 * np.square(same - taught).mean()
    clean = clean_scan() / 1000
    of_student, of_teacher = (np.square(drawn(m, estimate="mean") - clean).mean() for m in (fast, teacher))
    assert of_student < 1.1 * of_teacher  # the first call still is the mean


def test_a_student_says_where_it_comes_from_and_keeps_what_its_teacher_was_trained_on(trained_run, student):
    teacher, fast = load_model(trained_run), load_model(student[0])
    assert fast.about.distilled_from == teacher.weight_hash != fast.weight_hash
    assert ("distilled from weights", teacher.weight_hash) in facts_of(fast)
    assert fast.config.model == teacher.config.model
    assert set(fast.about.data.patients_train) >= set(teacher.about.data.patients_train)
    sampling = fast.config.sampling
    assert (sampling.solver, sampling.eta, sampling.steps, sampling.times[0]) == ("ddim", 0.0, 2, 99)


def test_one_call_may_be_asked_for(trained_run, tmp_path):
    model = load_model(trained_run)
    last = distill(model, tmp_path, student_config(model, 2, 1), teacher_steps=2, progress=False)
    fast = load_model(last)
    assert len(fast.config.sampling.times) == 1 and SliceRestorer(fast).sampler.network_calls(0.18) == 1
    assert np.isfinite(SliceRestorer(fast).restore(noisy_scan() / 1000, 0.18)).all()


def test_the_command_makes_a_model_that_denoises_and_goes_on(command, trained_run, tmp_path, save_nifti):
    out = tmp_path / "fast"
    code, said, err = command("distill", trained_run, "--steps", 2, "--teacher-steps", 2, "--out", out, "--no-progress")
    assert (code, err) == (0, "") and "one sample in 2 network call(s)" in said
    code, said, err = command(
        "distill", trained_run, "--steps", 3, "--teacher-steps", 2, "--out", out, "--no-progress", "--resume"
    )
    assert (code, err) == (0, "") and load_model(out / "checkpoints" / "last.ckpt").about.step == 3
    scan = save_nifti(tmp_path / "scan.nii.gz", noisy_scan())
    code, said, err = command("denoise", scan, tmp_path / "out.nii.gz", "--model", out, "--modality", "CT")
    assert code == 0 and "2 network calls a slice" in said
    assert io.read(tmp_path / "out.nii.gz").shape == (2, 64, 64)


def test_what_cannot_be_distilled_is_said_in_one_line(command, trained_run, student, tmp_path):
    other = tmp_path / "other.safetensors"
    model = load_model(trained_run)
    with torch.no_grad():
        next(model.network.parameters()).mul_(1.01)
    save_model(model, other)
    eps = parse_config({"model": {"parameterization": "eps"}})
    with pytest.raises(UserError, match="predicts eps, expected x0, v or precond"):
        Teacher(TrainedModel(model.network, build_process(eps.model), eps, name="m"), 4)
    for arguments, expected in (
        (["absent.ckpt"], "absent.ckpt: no such file"),
        (["shipped", "channel=64"], "model: found settings other than the teacher's"),
        ([trained_run, "--calls", 3], "--calls"),
        ([trained_run, "channel=64"], "model: found settings other than the teacher's"),
        (
            [trained_run, "times=[50, 20]", "--out", tmp_path / "a"],
            "found [50, 20], expected one time, or 99 and another",
        ),
        ([trained_run, "paths=[nowhere]"], "nowhere: found nothing"),
        ([trained_run, "--out", student[0]], "holds a run already"),
        ([other, "--out", student[0], "--resume"], "expected the teacher that it began with"),
    ):
        code, said, err = command("distill", *arguments)
        assert (code, said, err.count("\n")) == (2, "", 1) and expected in err, err
