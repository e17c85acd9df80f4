# %% [markdown]
# # A diffusion, step by step
#
# The four parts of a conditional diffusion model, built by hand: a schedule, a network with its condition, the loss,
# the sampling loop. Nothing here reads a configuration; `cdm4mi.diffusion` needs torch only.

# %%
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import cdm4mi
from cdm4mi.diffusion import (
    PARAMETERIZATIONS,
    DDPMPath,
    Latent,
    SeededNoise,
    make_betas,
    make_solver,
    sample,
    time_list,
)
from cdm4mi.networks import DiffusionWrapper, UNet

OUT = Path("diffusion_steps")
TRAINING_STEPS = 400
SIDE = 32
OUT.mkdir(exist_ok=True)
torch.manual_seed(0)

# %% [markdown]
# ## A path from the image to noise
#
# Everything rests on one line: x_t = a(t) x0 + c(t) eps, with unit noise eps. A schedule of betas decides a and c: at
# t = 0 the image is nearly clean, at the last time nearly nothing of it is left. (A bridge has a third term, b(t) y,
# the noisy scan itself: [docs/paths.md](../docs/paths.md).)

# %%
paths = {name: DDPMPath(make_betas(name, 1000)) for name in ("linear", "cosine")}
t = torch.arange(1000)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for name, path in paths.items():
    a, _, c = (value.flatten() for value in path.at(t))
    (line,) = axes[0].plot(t, a, label=f"{name}: a, the image's share")
    axes[0].plot(t, c, "--", color=line.get_color(), label=f"{name}: c, the noise's share")
    axes[1].plot(t, path.snr(t).flatten().log10())
axes[0].set(xlabel="t")
axes[1].set(xlabel="t", ylabel="log10 of the signal-to-noise ratio")
axes[0].legend(fontsize=8)
figure.savefig(OUT / "schedules.png", dpi=80)

# %% [markdown]
# ![The coefficients of two schedules, and their SNR](../docs/examples/schedules.png)
#
# The same noise on one image at six times of the cosine schedule:

# %%
path = paths["cosine"]
x0, y = cdm4mi.phantom_pairs(256, "MR", size=SIDE, sigma=0.3)  # clean and noisy, (256, 1, 32, 32) on [-1, 1]
eps = torch.randn(1, 1, SIDE, SIDE)
figure, axes = plt.subplots(1, 6, figsize=(12, 2.3), layout="constrained")
for axis, when in zip(axes, (0, 100, 250, 500, 750, 999), strict=True):
    axis.imshow(path.q_sample(x0[6:7], when, eps)[0, 0], cmap="gray", vmin=-1.5, vmax=1.5)
    axis.set(title=f"t = {when}", xticks=[], yticks=[])
figure.savefig(OUT / "forward.png", dpi=80)

# %% [markdown]
# ![An image turning into noise](../docs/examples/forward.png)
#
# ## A network that sees its condition
#
# The noisy scan y enters beside x_t, as a second channel ("concat"). The network does not return the image, but the
# velocity v = a eps - c x0 (Salimans and Ho 2022), whose scale is 1 at every time; a parameterization knows the way
# from there to x0 and back.

# %%
unet = UNet(in_channel=2, channel=32, channel_multiplier=(1, 2), n_res_blocks=1, attn_strides=(), dropout=0.0, fold=2)
network = DiffusionWrapper(unet, "concat")
v = PARAMETERIZATIONS["v"]
optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
falling = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=TRAINING_STEPS)

# %% [markdown]
# ## The loss
#
# Draw a time and a noise, make x_t, ask the network, compare. That is all of the training.

# %%
began = time.monotonic()
losses = []
for _ in range(TRAINING_STEPS):
    some = torch.randint(len(x0), (8,))
    t = torch.randint(path.timesteps, (8,))
    eps = torch.randn(8, 1, SIDE, SIDE)
    x_t = path.q_sample(x0[some], t, eps)
    target = v.target(x0[some], eps, Latent(path, x_t, t))
    loss = (network(x_t, t, y[some]) - target).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    falling.step()
    losses.append(loss.item())
print(f"{TRAINING_STEPS} steps in {time.monotonic() - began:.0f} s")
print(f"loss: {sum(losses[:20]) / 20:.3f} at first, {sum(losses[-20:]) / 20:.3f} at last")

# %% [markdown]
# ## Down the path
#
# A solver is a function that takes x_t and the estimate of x0 to the next time; which times are visited is an
# explicit list. `sample` is the loop around it, and its hook sees every state. Four people whom the network has not
# seen, 20 steps of DDIM:

# %%
network.eval()
clean, noisy = cdm4mi.phantom_pairs(4, "MR", size=SIDE, sigma=0.3, seed=1)


def denoise(x_t, t):
    """x0_hat, the one thing that every solver wants to know."""
    return v.x0(network(x_t, t, noisy), Latent(path, x_t, t))


def restored(solver, steps, seed=0, hook=None):
    """One sample for each of the four noisy images."""
    noise = SeededNoise(seed, range(4), (1, SIDE, SIDE))
    times = time_list("trailing", path, steps)
    x = path.start(noise.draw(0))
    return sample(denoise, path, times, make_solver(solver), x, noise=noise.draw, hook=hook)


states = []
restored("ddim", 20, hook=states.append)
shown = states[::3]
figure, axes = plt.subplots(2, len(shown) + 1, figsize=(12, 3.6), layout="constrained")
for column, state in zip(axes.T, shown, strict=False):
    column[0].imshow(state.x_t[0, 0], cmap="gray")
    column[1].imshow(state.x0_hat[0, 0], cmap="gray", vmin=-1, vmax=1)
    column[0].set_title(f"t = {state.t}")
axes[0, 0].set_ylabel("x_t")
axes[1, 0].set_ylabel("estimate of x0")
for axis, image, title in zip(axes[:, -1], (noisy, clean), ("the noisy scan", "clean"), strict=True):
    axis.imshow(image[0, 0], cmap="gray", vmin=-1, vmax=1)
    axis.set_title(title)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
figure.savefig(OUT / "states.png", dpi=80)

# %% [markdown]
# ![Latents and estimates from noise to image](../docs/examples/states.png)
#
# The first estimates, from hardly more than noise, are guesses of the mean: smooth, because what the network does not
# know is averaged (the grain of the very first one is its short training's). Further down, details are decided, one
# way out of many.
#
# ## How many steps, and which solver?
#
# DDIM and DPM-Solver++ 2M follow the same curve from noise to image; with enough steps they end in the same image.
# How far from it a few steps end says how good a solver is. 2M uses the estimate of the step before as well, at no
# further cost.

# %%
steps = (5, 10, 20, 40)
limit = restored("dpmpp_2m", 100)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for solver in ("ddim", "dpmpp_2m"):
    distance = [(restored(solver, n) - limit).square().mean().sqrt().item() for n in steps]
    axes[0].plot(steps, distance, "o-", label=solver)
axes[0].set(xlabel="steps (network calls)", ylabel="distance to the image of 100 steps", ylim=(0, None))
axes[0].legend()

# %% [markdown]
# A sample has one of the possible textures, so its error is larger than that of the mean of all of them; the more
# samples are averaged, the closer they come to it, and the smoother they are. `mean`, `sample` and `mean-of-k` of
# `cdm4mi denoise` are this choice.

# %%
samples = torch.stack([restored("dpmpp_2m", 10, seed) for seed in range(8)])
counts = (1, 2, 4, 8)
error = [(samples[:k].mean(0) - clean).square().mean().sqrt().item() for k in counts]
axes[1].plot(counts, error, "o-")
axes[1].set(xlabel="samples averaged", ylabel="error to the clean image", ylim=(0, None))
figure.savefig(OUT / "solvers.png", dpi=80)
noise_before = (noisy - clean).square().mean().sqrt()
print(f"error: {noise_before:.3f} of the noisy images, {error[0]:.3f} of one sample, {error[-1]:.3f} of the mean of 8")

# %% [markdown]
# ![Distance by the number of steps for two solvers; error by the number of samples](../docs/examples/solvers.png)
#
# Next: `ConditionDDPM` (README) is this loop with everything that a training needs beside it; a solver of your own is
# a function of a few lines ([CONTRIBUTING.md](../CONTRIBUTING.md)).
