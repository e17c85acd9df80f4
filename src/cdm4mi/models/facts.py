"""What a trained model is, in words and numbers. No patient data: patients are counted."""

from __future__ import annotations

from cdm4mi.models.about import Calibration, LesionCurve, LesionPoint
from cdm4mi.models.checkpoint import TrainedModel


def facts_of(model: TrainedModel) -> list[tuple[str, str]]:
    """(name, value) of network, process, training and weights."""
    config, about = model.config, model.about
    unet = config.model.unet_rosinality_config
    path = model.process.path
    a, _, c = (float(x) for x in path.at(path.timesteps - 1))
    multiplier = ", ".join(str(m) for m in unet.channel_multiplier)
    strides = ", ".join(str(s) for s in unet.attn_strides) or "none"
    facts = [
        (
            "network",
            f"Rosinality UNet, channel {unet.channel} x ({multiplier}), {unet.n_res_blocks} block(s) a level, "
            f"attention at strides {strides}, fold {unet.fold}",
        ),
        ("parameters", f"{sum(p.numel() for p in model.network.parameters()):,}"),
        ("conditioning key", config.model.conditioning_key),
        ("parameterization", config.model.parameterization),
        (
            "schedule",
            f"{config.model.beta_schedule}, {path.timesteps} timesteps, at the last: signal {a:.3g}, noise {c:.3g}",
        ),
        ("window", f"{config.model.image_size} x {config.model.image_size} pixels"),
        ("noise in training", _noise(model)),
        ("estimate", _estimate(model)),
    ]
    if about.data.patients_train:
        train, val = len(about.data.patients_train), len(about.data.patients_val)
        facts.append(("patients", f"{train} in training, {val} in validation"))
    if about.step is not None:
        facts.append(("training steps", f"{about.step:,} of {config.training.max_tsteps:,}"))
    if about.version is not None:
        facts.append(("trained with", f"cdm4mi {about.version}"))
    if about.distilled_from is not None:
        facts.append(("distilled from weights", about.distilled_from))
    if about.calibration:
        for kind, its in about.calibration.kinds.items():
            facts.append(("90 % intervals", f"{kind}: cover {100 * its.coverage:.1f} % ({its.measured_on})"))
        facts += [("uncertainty", line) for line in scan_bound_lines(about.calibration)]
    facts += [("lesions", line) for line in lesion_lines(about.lesions)] if about.lesions is not None else []
    if about.layout is not None:
        facts.append(("layout", about.layout))
    facts.append(("weights (SHA-256)", model.weight_hash))
    return facts


def _noise(model: TrainedModel) -> str:
    if model.about.layout is not None:
        return "not stated in the file"
    return model.config.data.noise.described()


def _estimate(model: TrainedModel) -> str:
    sampling = model.config.sampling
    if sampling.estimate == "mean":
        return "mean"
    many = "" if sampling.estimate == "sample" else f" of {sampling.samples}"
    where = f"{sampling.steps} steps" if sampling.times is None else f"times {', '.join(map(str, sampling.times))}"
    return f"{sampling.estimate}{many}, {sampling.solver}, {where}, eta {sampling.eta:g}"


def scan_bound_lines(calibration: Calibration) -> list[str]:
    """A line for each modality: the bounds that hold for whole scans, or why there are none."""
    found = []
    for modality, bound in calibration.scan_bounds.items():
        share = f"{100 * (1 - bound.alpha):.0f} % of scans"
        if bound.half_width is None or bound.region_half_width is None:
            what = (
                f"{bound.scans} scan{'' if bound.scans == 1 else 's'}, a bound for {share} needs {bound.scans_needed}"
            )
        else:
            what = (
                f"{share} have 90 % of their voxels within {bound.half_width:.3g} calibrated standard deviations, "
                f"and 90 % of every region's ({', '.join(bound.regions)}) within {bound.region_half_width:.3g}; "
                f"fitted on {bound.scans} scans with {', '.join(bound.kinds)}"
            )
        found.append(f"{modality}: {what}")
    return found


def lesion_lines(curve: LesionCurve) -> list[str]:
    """A line for each noise that lesions were tested in: the contrast kept and d', of the input's bound, of each."""
    found = []
    for noise in dict.fromkeys(point.noise for point in curve.points):
        points = [point for point in curve.points if point.noise == noise]
        each = [f"{p.size:.3g} px {p.contrast:.3g}: {round(100 * p.kept)} %{_seen(p)}" for p in points]
        what = f"contrast kept of {curve.shape}s in {curve.unit}"
        found.append(f"{noise} ({points[0].sigma:.3g} {curve.unit}), {what}: {'; '.join(each)}")
    return found


def _seen(point: LesionPoint) -> str:
    return "" if point.d is None or point.ideal_d is None else f" (d' {point.d:.1f} of at most {point.ideal_d:.1f})"
