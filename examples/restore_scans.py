# %% [markdown]
# # Restore a folder of scans, with a map of the uncertainty
#
# A scan goes in, the restored scan comes out in the same format, geometry and units, with a JSON record of what was
# done beside it. Here: a folder with a CT slice (DICOM, of those that pydicom ships) and a brain (NIfTI, a phantom
# with noise, so that the truth is known), the shipped model, and a standard deviation for every voxel. The same on
# the command line:
#
#     cdm4mi denoise scans/sub-01_T1w.nii.gz restored.nii.gz --samples 8 --steps 10 --uncertainty sd.nii.gz
#
# This file is a script and, opened with Jupytext (or in an editor that knows `# %%`), a notebook.

# %%
import json
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from pydicom.data import get_testdata_file

import cdm4mi

OUT = Path("restore_scans")
SIDE = 128  # pixels of the phantom
SAMPLES = 8  # the shipped model is calibrated for 8 samples of 10 steps
STEPS = 10

# %% [markdown]
# ## A folder of scans
#
# `phantom` draws an anatomy-like slice in the scanner's units; `Volume` is what every reader returns: an array
# (slices, rows, columns), an affine to millimetres, a modality. `add_noise` makes it noisy in its own units: 8
# percent of bright tissue.

# %%
shutil.rmtree(OUT, ignore_errors=True)
scans = OUT / "scans"
(scans / "head_ct").mkdir(parents=True, exist_ok=True)
shutil.copy(get_testdata_file("CT_small.dcm"), scans / "head_ct")

clean = cdm4mi.Volume(np.stack([cdm4mi.phantom("MR", 10, SIDE)]), np.diag([1.5, 1.5, 4.0, 1.0]), "MR")
noisy = cdm4mi.add_noise(clean, "gaussian", percent=8, seed=1)
cdm4mi.write(noisy, scans / "sub-01_T1w.nii.gz")

# %% [markdown]
# ## Restore all of them
#
# The model restores in two ways. `estimate="mean"` (its default) is one network call and the least error.
# `"mean-of-k"` draws K samples of what the clean scan may have been and averages them; how much they differ is the
# uncertainty. Nobody says how noisy the scans are: the level is measured.

# %%
model = cdm4mi.load_model()  # the shipped one; a run's folder for one of your own
sampling = {"estimate": "mean-of-k", "samples": SAMPLES, "steps": STEPS}
for scan in sorted(scans.iterdir()):
    deviation = scan.name if scan.is_file() else f"{scan.name}.dcm"  # of a DICOM series one file, a Parametric Map
    record = cdm4mi.denoise_file(
        scan, OUT / "restored" / scan.name, model, sampling, seed=0, uncertainty=OUT / "sd" / deviation
    )
    print(f"{scan.name}: noise of {record.noise_level.value:.3g}, {record.network_calls} network calls a slice")
    for warning in record.warnings:
        print(f"  warning: {warning}")

# %% [markdown]
# A warning is worth reading: the CT slice is less noisy than anything that the model was trained on, so it was told
# the least noise that it has seen. What was done is in the record, for whoever finds the scan in a year.

# %%
record = json.loads((OUT / "restored" / "sub-01_T1w.nii.gz.cdm4mi.json").read_text())
print(json.dumps({key: record[key] for key in ("model", "network_calls", "noise_level", "uncertainty")}, indent=1))

# %% [markdown]
# ## Look at it
#
# Below each picture its error against the clean phantom. The difference between noisy and restored should look like
# noise: edges in it would be anatomy that was taken away.

# %%
restored = cdm4mi.read(OUT / "restored" / "sub-01_T1w.nii.gz")
deviation = cdm4mi.read(OUT / "sd" / "sub-01_T1w.nii.gz")
body = clean.array[0] > 50  # scanner units


def rms(difference):
    """Root mean square over the head."""
    return float(np.sqrt(np.mean(difference[0][body] ** 2)))


panels = {
    "clean": (clean.array[0], "gray", 0, 1000),
    f"noisy: {rms(noisy.array - clean.array):.0f}": (noisy.array[0], "gray", 0, 1000),
    f"restored: {rms(restored.array - clean.array):.0f}": (restored.array[0], "gray", 0, 1000),
    "noisy - restored": (noisy.array[0] - restored.array[0], "RdBu_r", -300, 300),
    "standard deviation": (deviation.array[0], "viridis", 0, 100),
}
figure, axes = plt.subplots(1, len(panels), figsize=(15, 3.9), layout="constrained")
for axis, (title, (image, colours, low, high)) in zip(axes, panels.items(), strict=True):
    shown = axis.imshow(image, cmap=colours, vmin=low, vmax=high)
    axis.set(title=title, xticks=[], yticks=[])
    figure.colorbar(shown, ax=axis, location="bottom", shrink=0.8)
figure.savefig(OUT / "restored.png", dpi=80)

# %% [markdown]
# ![Clean, noisy and restored phantom, what was taken away, and the standard deviation](../docs/examples/restored.png)
#
# ## Can the map be trusted?
#
# The shipped model is calibrated on its validation patients: nine voxels of ten should lie within 1.645 standard
# deviations. A phantom is not what it was calibrated on, so this is a test and not a proof; on scans like your own,
# `cdm4mi calibrate` fits it anew. The map should also know where the errors are: voxels sorted by their deviation,
# the error should rise with it.

# %%
error = np.abs(restored.array - clean.array)[0][body]
sd = deviation.array[0][body]
covered = float(np.mean(error <= 1.645 * sd))
print(f"within 1.645 standard deviations: {covered:.0%} of the voxels (90% if the map is right)")

groups = np.array_split(np.argsort(sd), 10)
figure, axis = plt.subplots(figsize=(4.5, 4), layout="constrained")
told = [float(np.sqrt(np.mean(sd[group] ** 2))) for group in groups]
found = [float(np.sqrt(np.mean(error[group] ** 2))) for group in groups]
axis.plot(told, found, "o-", label="a tenth of the voxels each")
axis.plot([0, max(told)], [0, max(told)], "--", color="gray", label="as large as the map says")
axis.set(xlabel="standard deviation of the map", ylabel="error (root mean square)", xlim=(0, None), ylim=(0, None))
axis.legend()
figure.savefig(OUT / "trust.png", dpi=80)

# %% [markdown]
# ![The error rises with the standard deviation of the map](../docs/examples/trust.png)
#
# Next: [train on your own scans](train_own.py); what the estimates are: [docs/paths.md](../docs/paths.md).
