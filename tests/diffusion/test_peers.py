"""The same denoiser, times and noise in diffusers' schedulers give the same samples, where the definitions agree.

Where they do not, the oracle says which is right.
"""

import math

import pytest
import torch
from gaussian_oracle import gaussian_denoiser, numbers

from cdm4mi.diffusion import PARAMETERIZATIONS, DDPMPath, Latent, make_betas, make_solver, sample, time_list
from cdm4mi.networks import UNet

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

T = 1000
BETAS = {"linear": "linear", "sqrt_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
PEER = {"clip_sample": False, "prediction_type": "sample", "num_train_timesteps": T}


def run_peer(scheduler, times, denoise, x, **options):
    assert scheduler.timesteps.tolist() == times
    for t in times:
        x = scheduler.step(denoise(x, torch.tensor([t])), t, x, **options).prev_sample
    return x


def run_ours(path, times, solver, denoise, x, generator):
    return sample(denoise, path, times, solver, x, noise=lambda n: torch.randn(x.shape, generator=generator))


@pytest.fixture
def start():
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("ours", "theirs"), BETAS.items())
def test_betas(ours, theirs):
    scheduler = diffusers.DDPMScheduler(beta_schedule=theirs, beta_start=1e-4, beta_end=2e-2, num_train_timesteps=T)
    # their tables are float32
    assert torch.allclose(make_betas(ours, T).float(), scheduler.betas, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("spacing", ["linspace", "trailing", "leading"])
@pytest.mark.parametrize("steps", [2, 7, 13, 50, 300])
def test_times(spacing, steps):
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=T, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    assert time_list(spacing, T, steps) == scheduler.timesteps.tolist()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_where_the_stride_divides(schedule, spacing, eta, start):
    """Theirs takes the previous time as t - T // S: equal to ours only where that is the next of the list."""
    betas, steps = make_betas(schedule, T), 20
    path, times = DDPMPath(betas), time_list(spacing, T, steps)
    denoise = gaussian_denoiser(path, 0.2, 0.5)
    scheduler = diffusers.DDIMScheduler(
        trained_betas=betas.numpy(), timestep_spacing=spacing, set_alpha_to_one=True, **PEER
    )
    scheduler.set_timesteps(steps)
    theirs = run_peer(scheduler, times, denoise, start, eta=eta, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    ours = run_ours(path, times, make_solver("ddim", eta), denoise, start, generator)
    assert torch.allclose(ours, theirs, atol=1e-4)  # float32 tables there
    assert float(ours.std()) > 0.3  # an image's spread, not two collapsed samplers


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize(("spacing", "steps"), [("trailing", 13), ("linspace", 7), ("quadratic", 30)])
def test_ddpm_over_any_list_of_times(schedule, spacing, steps, start):
    betas = make_betas(schedule, T)
    path, times = DDPMPath(betas), time_list(spacing, T, steps)
    denoise = gaussian_denoiser(path, 0.2, 0.5)
    scheduler = diffusers.DDPMScheduler(trained_betas=betas.numpy(), variance_type="fixed_small", **PEER)
    scheduler.set_timesteps(timesteps=times)
    theirs = run_peer(scheduler, times, denoise, start, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    ours = run_ours(path, times, make_solver("ddpm"), denoise, start, generator)
    assert torch.allclose(ours, theirs, atol=1e-4)


def multistep(name, betas, **options):
    """DPM-Solver++ or UniPC of diffusers, of the order and data prediction of our ``name``."""
    common = {"trained_betas": betas.numpy(), "num_train_timesteps": len(betas), "prediction_type": "sample"} | options
    if name.startswith("unipc"):
        return diffusers.UniPCMultistepScheduler(
            **common, solver_order=int(name[-1]), solver_type="bh2", final_sigmas_type="zero"
        )
    sde = "sde-" if name.endswith("sde") else ""
    return diffusers.DPMSolverMultistepScheduler(
        **common,
        solver_order=3 if "3m" in name else 2,
        algorithm_type=f"{sde}dpmsolver++",
        lower_order_final=False,
        final_sigmas_type="zero",
    )


@pytest.mark.parametrize("schedule", ["linear", "cosine", "log_sigma"])
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_sde", "unipc_2"])
def test_multistep_solvers_of_second_order(name, spacing, schedule, start):
    betas = make_betas(schedule, T)
    path = DDPMPath(betas)
    scheduler = multistep(name, betas, timestep_spacing=spacing)
    scheduler.set_timesteps(20)
    times = scheduler.timesteps.tolist()
    denoise = gaussian_denoiser(path, 0.2, 0.5)
    options = {"generator": torch.Generator().manual_seed(1)} if name.endswith("sde") else {}
    theirs = run_peer(scheduler, times, denoise, start, **options)
    ours = run_ours(path, times, make_solver(name), denoise, start, torch.Generator().manual_seed(1))
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert float(ours.std()) > 0.3


def test_unipc_of_third_order_until_it_nears_its_end(start):
    """Theirs falls to lower orders in the last two steps (``lower_order_final``), ours in the last, which is x0_hat.

    So the states are the same up to the last, and there both are as near the exact flow of the oracle.
    """
    betas = make_betas("log_sigma", T)
    path, m, s = DDPMPath(betas), 0.2, 0.5
    scheduler = multistep("unipc_3", betas)
    scheduler.set_timesteps(20)
    times = scheduler.timesteps.tolist()
    denoise, ours, theirs, x = gaussian_denoiser(path, m, s), [], [], start.double()
    sample(
        denoise, path, times, make_solver("unipc_3"), x, noise=lambda n: x, hook=lambda state: ours.append(state.x_t)
    )
    for t in times:
        theirs.append(x)
        x = scheduler.step(denoise(x, torch.tensor([t])), t, x).prev_sample
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(ours[:-1], theirs[:-1], strict=True))
    (a, c), (a_end, c_end) = numbers(path, times[0]), numbers(path, times[-1])
    flow = a_end * m + math.hypot(a_end * s, c_end) * (start.double() - a * m) / math.hypot(a * s, c)
    assert float((ours[-1] - theirs[-1]).abs().max()) > 1e-5
    for state in (ours[-1], theirs[-1]):
        assert float((state - flow).abs().max()) < 3e-4


def test_their_third_order_dpm_solver_is_of_second_order():
    """Their second derivative lacks a factor 2: on the oracle their error falls as that of second order does."""
    betas = make_betas("log_sigma", 961, sigma_min=0.05, sigma_max=20.0)
    path, m, s = DDPMPath(betas), 0.3, 0.2
    x_start = torch.linspace(-2, 2, 64, dtype=torch.float64).reshape(1, 1, 8, 8)
    denoise = gaussian_denoiser(path, m, s)
    (a, c), (a_end, c_end) = numbers(path, 960), numbers(path, 0)
    flow = a_end * m + math.hypot(a_end * s, c_end) * (x_start - a * m) / math.hypot(a * s, c)
    errors = {"ours": [], "theirs": []}
    for steps in (60, 120):
        times = list(range(960, -1, -960 // steps))
        scheduler = multistep("dpmpp_3m", betas, timestep_spacing="linspace")
        scheduler.set_timesteps(timesteps=times)
        x, states = x_start, []
        for t in times:
            last = x
            x = scheduler.step(denoise(x, torch.tensor([t])), t, x).prev_sample
        errors["theirs"].append(float((last - flow).abs().max()))
        run = {"noise": lambda n: x_start, "hook": states.append}
        sample(denoise, path, times, make_solver("dpmpp_3m"), x_start, **run)
        errors["ours"].append(float((states[-1].x_t - flow).abs().max()))
    order = {whose: math.log2(coarse / fine) for whose, (coarse, fine) in errors.items()}
    assert order["ours"] > 2.9 and order["theirs"] < 2.4
    assert errors["ours"][1] < 0.2 * errors["theirs"][1]


@pytest.mark.parametrize("steps", [7, 13])
def test_ddim_where_the_stride_does_not_divide(steps, start):
    """Theirs takes the previous time as t - T // S, which is not the next of its list: the oracle's mean is missed."""
    betas = make_betas("linear", T)
    path, times = DDPMPath(betas), time_list("trailing", T, steps)
    denoise = gaussian_denoiser(path, 0.7, 0.5)
    scheduler = diffusers.DDIMScheduler(
        trained_betas=betas.numpy(), timestep_spacing="trailing", set_alpha_to_one=True, **PEER
    )
    scheduler.set_timesteps(steps)
    mean = torch.full((1, 1, 1, 1), float(path.at(999).a) * 0.7)  # the mean of x_T, which must become that of x0
    assert float(run_ours(path, times, make_solver("ddim"), denoise, mean, None)) == pytest.approx(0.7, abs=1e-6)
    assert abs(float(run_peer(scheduler, times, denoise, mean)) - 0.7) > 1e-4


def test_heun_in_sigma_diverges_where_the_path_starts_at_a_great_sigma(start):
    """Theirs is a line in sigma (EDM's choice for its own times); ours in the angle holds on any list of times."""
    betas = make_betas("cosine", T)
    path = DDPMPath(betas)
    scheduler = diffusers.HeunDiscreteScheduler(
        trained_betas=betas.numpy(), prediction_type="sample", num_train_timesteps=T, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(10)
    denoise = gaussian_denoiser(path, 0.0, 0.5)
    x = start * scheduler.init_noise_sigma
    times = time_list("trailing", path, 10)
    for t in scheduler.timesteps:
        i = scheduler.index_for_timestep(t) if scheduler.step_index is None else scheduler.step_index
        sigma = scheduler.sigmas[i]
        x0 = denoise(x / (sigma**2 + 1) ** 0.5, t.long().reshape(1))
        x = scheduler.step(x0, t, x).prev_sample
    ours = run_ours(path, times, make_solver("heun"), denoise, start, None)
    unit = 0.5 * start  # the exact flow of N(0, 0.5^2) from a = 0 keeps each pixel's place in the distribution
    assert float((x - unit).abs().max()) > 2
    assert float((ours - unit).abs().max()) < 0.1


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "unipc_2"])
def test_the_same_trained_network(name, tiny):
    """A network trained for some seconds, as a user has it: conditional, preconditioned, 100 times."""
    process, levels = tiny.process, torch.full((2,), 0.2)
    y = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)

    cond = process.condition(y, levels)

    def denoise(x, t):
        with torch.no_grad():
            return process.denoiser(tiny.network, cond)(x, t.expand(2))

    betas = process.path.betas
    if name == "ddim":
        scheduler = diffusers.DDIMScheduler(
            **PEER | {"num_train_timesteps": 100}, trained_betas=betas.numpy(), timestep_spacing="trailing"
        )
    else:
        scheduler = multistep(name, betas, timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    times = scheduler.timesteps.tolist()
    x_start = process.start(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)), cond)
    theirs = run_peer(scheduler, times, denoise, x_start)
    ours = run_ours(process.path, times, make_solver(name), denoise, x_start, None)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert float((ours - y).abs().mean()) > 0.02  # it did something


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "unipc_2"])
def test_the_same_network_that_predicts_eps(name, start):
    """Each side turns eps into x0_hat itself."""
    torch.manual_seed(0)
    unet = UNet(1, 1, 32, (1,), 1, (), dropout=0.0).eval()
    torch.nn.init.normal_(unet.out[2].weight, std=0.05)  # the untrained network's output is 0
    betas = make_betas("linear", T)
    path = DDPMPath(betas)

    def eps(x, t):
        with torch.no_grad():
            return unet(x, t.expand(len(x)))

    if name == "ddim":
        scheduler = diffusers.DDIMScheduler(
            **PEER | {"prediction_type": "epsilon"}, trained_betas=betas.numpy(), timestep_spacing="trailing"
        )
    else:
        scheduler = multistep(name, betas, timestep_spacing="trailing", prediction_type="epsilon")
    scheduler.set_timesteps(10)
    times = scheduler.timesteps.tolist()
    theirs = run_peer(scheduler, times, eps, start)

    def denoise(x, t):
        return PARAMETERIZATIONS["eps"].x0(eps(x, t), Latent(path, x, t))

    ours = run_ours(path, times, make_solver(name), denoise, start, None)
    scale = float(theirs.abs().max())  # not an image: an eps that is no noise leaves x0_hat at about 1 / a
    assert torch.allclose(ours, theirs, atol=1e-4 * scale)


def test_eps_and_v_mean_the_same(start):
    betas = make_betas("linear", T)
    path = DDPMPath(betas)
    out = torch.randn(start.shape, generator=torch.Generator().manual_seed(2))
    for ours, theirs in (("eps", "epsilon"), ("v", "v_prediction"), ("x0", "sample")):
        scheduler = diffusers.DDIMScheduler(trained_betas=betas.numpy(), **{**PEER, "prediction_type": theirs})
        scheduler.set_timesteps(10)
        for t in (0, 300, 900):
            x0 = scheduler.step(out, t, start).pred_original_sample
            z = Latent(path, start, torch.tensor([t, t]))
            assert torch.allclose(PARAMETERIZATIONS[ours].x0(out, z), x0, rtol=1e-4, atol=1e-4)
