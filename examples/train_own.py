# %% [markdown]
# # Train on your own scans
#
# From a folder of scans to a model that restores a new one: prepare, check, plan, train, restore. The scans here are
# phantoms written as NIfTI, so that everything runs in a minute; put the path of your own folder in their place. The
# same on the command line:
#
#     cdm4mi prepare scans/ store/
#     cdm4mi check store/ --out sheet.png
#     cdm4mi train store/
#     cdm4mi denoise scan.nii.gz restored.nii.gz --model runs/store

# %%
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import cdm4mi

OUT = Path("train_own")
MINUTES = 0.4  # of training; an hour is what a plan allows unless it is told otherwise
SIDE = 96

# %% [markdown]
# ## Scans
#
# Ten people of four slices each. Who is who is told from the DICOM PatientID, a BIDS label (`sub-01`) or the file's
# name; it matters because the split is by patient.

# %%
shutil.rmtree(OUT, ignore_errors=True)
(OUT / "scans").mkdir(parents=True)
for person in range(10):
    slices = np.stack([cdm4mi.phantom("MR", 10 * person + k, SIDE) for k in range(4)])
    scan = cdm4mi.Volume(slices, np.diag([1.5, 1.5, 4.0, 1.0]), "MR")
    cdm4mi.write(scan, OUT / "scans" / f"sub-{person:02d}_T1w.nii.gz")

# %% [markdown]
# ## Prepare: read every scan once
#
# The store keeps the slices that show the patient, in physical units, and a manifest: which patient, which split,
# what was left out and why. It holds no names and no dates. Run again, only what is new is read.

# %%
store = OUT / "store"
report = cdm4mi.prepare([OUT / "scans"], store, workers=1)
print("patients:", report.manifest.patients, "slices:", report.manifest.slices)
print("not in the store:", report.bad)

# %% [markdown]
# ## Plan: what to train on these data with this machine
#
# `load_plan` reads `plan.yaml` beside the store, and makes it where there is none: it measures the scans' own noise
# and times a step here. The file gives the reason for every choice, and a plan that was changed is kept. Any of its
# keys can be set on the way, as `val_patches` is here.

# %%
config = cdm4mi.load_plan(store, ["val_patches=8"], minutes=MINUTES)
print((store / "plan.yaml").read_text()[:1500], "...")

# %% [markdown]
# ## Check: mistakes in the data, before they are trained on
#
# Is one patient in two splits? Is a CT stored as 0 to 4095 taken for HU? Do the conditions have the noise that they
# are said to have? Each check says what it found, and what to do.

# %%
for finding in cdm4mi.check(config, OUT / "sheet.png"):
    print(f"{finding.grade:<5}  {finding.name:<10}  {finding.message}")

# %% [markdown]
# The contact sheet shows what training will see, one patch a row: the clean target, the noisy condition, their
# difference, and the target on its way into noise.
#
# ![Contact sheet of the training patches](../docs/examples/sheet.png)
#
# ## Train
#
# The run's folder holds the configuration, checkpoints, logs (CSV and TensorBoard) and, where asked for, pictures.
# Ctrl-C saves and stops; `resume=True` goes on, bit for bit.

# %%
last = cdm4mi.train(config, OUT / "run", progress=False)
print("trained:", last)

# %% [markdown]
# ## Restore somebody new
#
# A phantom of nobody in the store, with noise as in training (Rician, in percent of bright tissue); one network call
# a slice.

# %%
clean = cdm4mi.Volume(cdm4mi.phantom("MR", 777, SIDE)[None], np.diag([1.5, 1.5, 4.0, 1.0]), "MR")
noisy = cdm4mi.add_noise(clean, "rician", percent=12, seed=0)
result = cdm4mi.denoise(noisy, OUT / "run")
restored = result.volume
for warning in result.record.warnings:
    print("warning:", warning)


def rms(volume):
    """Error over the head, root mean square, in the scanner's units."""
    body = clean.array > 50
    return float(np.sqrt(np.mean((volume.array - clean.array)[body] ** 2)))


figure, axes = plt.subplots(1, 3, figsize=(10, 3.8), layout="constrained")
titles = ("clean", f"noisy: error {rms(noisy):.0f}", f"restored: error {rms(restored):.0f}")
for axis, title, volume in zip(axes, titles, (clean, noisy, restored), strict=True):
    axis.imshow(volume.array[0], cmap="gray", vmin=0, vmax=1000)
    axis.set(title=title, xticks=[], yticks=[])
figure.savefig(OUT / "own.png", dpi=80)

# %% [markdown]
# ![A phantom, the same with noise, restored by the model of a minute's training](../docs/examples/own.png)
#
# A minute's training removes most of the noise and blurs what a longer one keeps. For a result, leave the plan as it
# is: `cdm4mi train train_own/store`. Its figures on people whom it has not seen come from `cdm4mi evaluate` and
# `cdm4mi benchmark` ([docs/evaluation.md](../docs/evaluation.md)); what to do where training goes wrong is in
# [docs/training.md](../docs/training.md).
