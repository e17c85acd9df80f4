"""The typed configuration: every key a user may set, its default, unit and range."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_core import PydanticKnownError

from cdm4mi.choices import SOLVERS, EstimateName, LossName, ParameterizationName, ScheduleName, SpacingName, StartName
from cdm4mi.degradation import GaussianNoise, NoiseConfig
from cdm4mi.section import Count, Fraction, NonNegative, Positive, Section

NormName = Literal["group", "pixel"]
PathName = Literal["ddpm", "residual", "bridge", "i2sb"]
ConditioningKey = Literal["concat", "crossattn", "adm", "hybrid", "none"]
NotNegative = Annotated[int, Field(ge=0)]
Percentile = Annotated[float, Field(ge=0, le=100)]
Decay = Annotated[float, Field(ge=0, lt=1)]
AcquisitionNumber = Literal["noise_level", "pixel_spacing", "slice_spacing"]


PATH_DEFAULTS: dict[str, dict[str, Any]] = {
    "residual": {"beta_schedule": "log_sigma", "parameterization": "precond"},
    "bridge": {"parameterization": "v"},
    "i2sb": {"parameterization": "precond"},
}
"""What a path brings where the configuration does not say otherwise."""


def _cutoff(value: float | str) -> float | str:
    """Cycles a pixel, or "auto"."""
    if value != "auto" and not (isinstance(value, float) and 0 < value < 0.5):
        raise ValueError("auto, or cycles a pixel above 0 and below 0.5")
    return value


def _apart(pair: list[float]) -> list[float]:
    if pair[0] >= pair[1]:
        raise ValueError(f"found {pair}, expected the first below the second")
    return pair


def _known_solver(name: str) -> str:
    """A name that the table of solvers has now, which a program may have added to."""
    if name not in SOLVERS:
        *others, last = map(repr, SOLVERS)
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}"})
    return name


class UNetConfig(Section):
    """The Rosinality UNet (``networks.unet.UNet``); the first ten keys are the mission's."""

    in_channel: Count = 2
    out_channel: Count = 1
    channel: Annotated[int, Field(ge=8, multiple_of=8)] = 64
    channel_multiplier: Annotated[list[Count], Field(min_length=1)] = Field([1, 2, 4])
    n_res_blocks: Count = 2
    attn_strides: list[Count] = Field([4])
    attn_heads: Count = 1
    use_affine_time: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    fold: Count = 1
    context_dim: Count | None = Field(None, description="width of the tokens for conditioning_key crossattn or hybrid")
    vector_dim: Count | None = Field(None, description="width of the vector for conditioning_key adm")
    attn_scale: Literal["head", "channel"] = Field(
        "head",
        description="attention divides by the root of the head's width, or (some old checkpoints) of all channels",
    )
    norm_groups: Count = Field(32, description="groups of every norm, each of which loses its mean; divides channel")
    norm: NormName = Field(
        "group", description="group: over groups of channels and all pixels; pixel: over each pixel's"
    )
    attn_middle: bool = Field(True, description="attention at the coarsest level, between the ways down and up")
    dilation: Annotated[list[Count], Field(min_length=3, max_length=3)] = Field(
        [1, 1, 1],
        description="step between the pixels of the second convolution of the residual blocks: down, middle, up",
    )
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _whole_groups(self) -> UNetConfig:
        if self.norm == "group" and self.channel % self.norm_groups:
            raise ValueError(f"norm_groups is {self.norm_groups}, expected a divisor of channel = {self.channel}")
        return self


class ModelConfig(Section):
    """The Gaussian path, what the network predicts, and how it is conditioned."""

    image_size: Count = Field(64, description="side of a training patch and of the sampling window, pixels")
    channels: Count = Field(1, description="channels of the image")
    timesteps: Annotated[int, Field(ge=2, le=100_000)] = 1000
    path: PathName = Field(
        "ddpm",
        description="ddpm: to pure noise; residual: of the residual to the condition (log_sigma, precond); bridge: a "
        "straight flow from the condition; i2sb: a Brownian bridge from the condition",
    )
    bridge_noise: NonNegative = Field(
        0.25,
        description="on [-1, 1], standard deviation of the bridge's source noise; i2sb: of the whole Brownian path",
    )
    regression: str | None = Field(
        None,
        description="a trained model whose one-call mean takes the condition's place in precond, bridge and i2sb "
        "(CorrDiff, PMRF); its weights go into the checkpoint",
    )
    beta_schedule: ScheduleName = "linear"
    linear_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    linear_end: Annotated[float, Field(gt=0, lt=1)] = 2e-2
    cosine_s: Positive = 8e-3
    betas: list[float] | None = Field(None, description="for beta_schedule custom: one number in (0, 1) a step")
    sigma_min: Positive = Field(
        0.01, description="for beta_schedule log_sigma: least noise, in units of the clean image"
    )
    sigma_max: Positive = Field(3.0, description="for beta_schedule log_sigma: most noise, in units of the clean image")
    zero_terminal_snr: bool = False
    parameterization: ParameterizationName = "eps"
    mean_from: Literal["network", "condition"] = Field(
        "network",
        description="parameterization eps: what tells the mean of the image, which a network learns last; condition: "
        "the noisy image, and the network the rest",
    )
    conditioning_key: ConditioningKey = "concat"
    level_channel: bool = Field(False, description="give the network the condition's noise level as one more channel")
    texture_channels: bool = Field(
        False,
        description="give the network three more channels: correlation of the condition's noise with the next row and "
        "the next column, and whether it is a magnitude (MR)",
    )
    sigma_r: Positive | None = Field(
        None,
        description="root mean square of x0 - y on [-1, 1] for precond; none: the known level of each sample, or, on "
        "a regression, what the validation patients show",
    )
    acquisition_vector: list[AcquisitionNumber] | None = Field(
        None,
        description="for adm: names of the acquisition numbers that make the vector; none: a vector from the image",
    )
    network: Literal["unet", "dncnn", "red_cnn"] = Field(
        "unet",
        description="dncnn, red_cnn: regression baselines of the papers' sizes, which take of unet_rosinality_config "
        "in_channel and out_channel only",
    )
    unet_rosinality_config: UNetConfig = UNetConfig()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_path(cls, data: Any) -> Any:
        """``path`` alone is enough: it brings the schedule and parameterization that suit it."""
        suited = PATH_DEFAULTS.get(str(data.get("path")), {}) if isinstance(data, dict) else {}
        return suited | data if suited else data

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.path in ("bridge", "i2sb"):
            self._check_bridge()
        if self.path == "residual" and self.parameterization != "precond":
            raise ValueError(f"path residual with parameterization {self.parameterization}, expected precond")
        if self.regression is not None and self.path == "ddpm":
            raise ValueError("regression is given but path is ddpm, expected residual, bridge or i2sb")
        if self.mean_from == "condition":
            if self.parameterization != "eps" or self.path != "ddpm":
                found = f"path {self.path} and parameterization {self.parameterization}"
                raise ValueError(f"mean_from condition with {found}, expected path ddpm and parameterization eps")
            if self.conditioning_key == "none":
                raise ValueError("mean_from condition with conditioning_key none, expected a condition")
        if self.beta_schedule == "custom":
            if self.betas is None:
                raise ValueError("beta_schedule custom needs betas, found none; give betas: [..], one a step")
            if len(self.betas) != self.timesteps:
                raise ValueError(f"betas has {len(self.betas)} numbers, expected timesteps = {self.timesteps}")
        elif self.betas is not None:
            raise ValueError(f"betas is given but beta_schedule is {self.beta_schedule}, expected custom")
        if self.zero_terminal_snr and self.parameterization == "eps":
            raise ValueError("parameterization eps says nothing about x0 at zero terminal SNR, expected x0 or v")
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} is not below sigma_max {self.sigma_max}")
        return self

    def _check_bridge(self) -> None:
        if self.parameterization == "eps" or (self.path == "i2sb" and self.parameterization == "v"):
            raise ValueError(f"path {self.path} with parameterization {self.parameterization}, expected x0 or precond")
        if self.bridge_noise == 0:
            if self.path == "i2sb":
                raise ValueError("bridge_noise is 0 with path i2sb, expected more (without it: path bridge)")
            if self.conditioning_key != "none":
                raise ValueError(
                    f"bridge_noise is 0 with conditioning_key {self.conditioning_key}, expected none: on a bridge "
                    "without noise x_t and the condition together give the clean image away"
                )
            if self.parameterization == "precond":
                raise ValueError("bridge_noise is 0 with parameterization precond, expected x0 or v")


class AugmentConfig(Section):
    """How training patches are varied, decided for each by seed and index.

    Flips and quarter turns are those of image and condition, in validation too; the other changes are made to the
    clean image of a training patch before its noise.
    """

    flip: bool = Field(True, description="mirror half of the patches")
    rotation: Literal["quarter"] | Annotated[float, Field(ge=0, le=180)] = Field(
        "quarter", description="quarter: by a multiple of 90 degrees; a number: by up to so many degrees either way"
    )
    contrast: NonNegative = Field(
        0.0, description="multiply the differences to the mean by 1 / (1 + contrast) to 1 + contrast"
    )
    sharpness: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="add up to so much of what a 3 x 3 blur takes away, or take it away"
    )
    curve: Fraction = Field(
        0.0, description="share of the MR and PET patches whose intensities a random curve turns into another contrast"
    )
    shrink: Fraction = Field(
        0.0, description="share of the patches that are cut twice as large, where a slice is, and averaged over 2 x 2"
    )
    leaves: Fraction = Field(
        0.0, description="share of the patches that are replaced by ellipses in their intensities (data.dead_leaves)"
    )
    lesions: Fraction = Field(
        0.0, description="share of the patches to which a few ellipses of low contrast are added (data.lesions)"
    )
    lesion_weight: Annotated[float, Field(ge=1)] = Field(
        1.0,
        description="weight of the loss inside such an ellipse of 100 pixels, and inverse to the area inside others, "
        "in noise that does not hide them: small and faint, they are next to nothing of a patch, and a network that "
        "loses them restores the rest as well",
    )

    @model_validator(mode="after")
    def _lesions_to_weigh(self) -> AugmentConfig:
        if self.lesion_weight > 1 and self.lesions == 0:
            raise ValueError(f"lesion_weight is {self.lesion_weight:g} with lesions 0, expected lesions above 0")
        return self


class DataConfig(Section):
    """Where the clean scans are and how they become patches."""

    kind: Literal["volumes", "hdf5", "phantoms", "store"] = "volumes"
    paths: list[str] = Field(
        default_factory=list, description="scans, folders or patterns; hdf5: one folder of patch files; store: one"
    )
    dynamic_range: Positive = Field(255.0, description="hdf5: the integer that maps to +1 (0 maps to -1)")
    window: Annotated[list[float], Field(min_length=2, max_length=2)] = Field(
        [-1000.0, 1000.0], description="CT: HU that map to -1 and +1"
    )
    percentiles: Annotated[list[Percentile], Field(min_length=2, max_length=2), AfterValidator(_apart)] = Field(
        [0.0, 99.5], description="MR, PET: percentiles of the foreground that map to -1 and +1"
    )
    resize: Count | Annotated[list[Count], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="resize training slices: a side (padded to a square, not stretched) or [rows, columns]; none: as "
        "they are",
    )
    slice_step: Count = Field(1, description="take every n-th slice of a volume")
    foreground: Fraction = Field(0.1, description="least fraction of a training patch that must be foreground")
    val_fraction: Fraction = Field(0.1, description="share of the patients (at least one) kept for validation")
    val_patients: list[str] | None = Field(
        None, description="patients kept for validation, by name; overrides val_fraction"
    )
    exclude_patients: list[str] = Field(default_factory=list, description="patients left out (the test set)")
    neighbours: NotNegative = Field(
        0,
        description="2.5-D: so many slices above and as many below the one restored are further condition channels "
        "(noisy as it is; at an end the last slice is repeated)",
    )
    contrasts: list[str] = Field(
        default_factory=list,
        description="other contrasts of the same patients on the same grid (a clean or a noisy scan, as it is): a "
        "path, folder or pattern each, one scan a patient; each is one more condition channel",
    )
    val_patches: Count = 64
    train_slices: Count | None = Field(
        None, description="train on so many slices (hdf5: patches), evenly spread over the patients; none: on all"
    )
    patches_per_slice: Count | None = Field(
        None, description="training patches in a row from one noisy slice; none: 16 for noise of whole slices, else 1"
    )
    slices_mixed: Count = Field(
        1, description="noisy slices of patches_per_slice patches each that take turns in a batch"
    )
    augment: AugmentConfig = AugmentConfig()
    noise: NoiseConfig = GaussianNoise()
    level_jitter: NonNegative = Field(
        0.0,
        description="training patches tell the network their noise level times exp(so much times a normal number): it "
        "learns from levels as wrong as estimated ones",
    )
    level_map_share: Fraction = Field(
        0.0,
        description="with model.level_channel: share of the training patches that give the network the noise level of "
        "every pixel, with errors of level_jitter from place to place; else it has one level for the patch",
    )
    texture_jitter: Fraction = Field(
        0.0,
        description="with texture_channels: standard deviation of the error of the correlations that training patches "
        "tell the network, and share of those that call a magnitude none, or the other way round",
    )
    workers: Annotated[int, Field(ge=0)] = Field(
        0, description="processes that draw and make training patches; 0: none"
    )
    on_device: Literal["auto"] | bool = Field(
        "auto",
        description="training patches get changes of intensity and noise on the training's device, in batches; auto: "
        "on a GPU, where the noise is made in batches and not of whole slices",
    )

    @model_validator(mode="after")
    def _slices_that_follow_one_another(self) -> DataConfig:
        if self.neighbours and self.kind in ("hdf5", "phantoms"):
            raise ValueError(
                f"neighbours is {self.neighbours} with kind {self.kind}, whose slices do not follow one another, "
                "expected kind volumes or store"
            )
        if self.contrasts and self.kind != "volumes":
            raise ValueError(f"contrasts is given with kind {self.kind}, expected kind volumes")
        return self


class TrainingConfig(Section):
    """Optimisation, schedule, logging and checkpoints. Steps are optimizer steps."""

    max_tsteps: Count = 100_000
    max_minutes: Positive | None = Field(
        None, description="end after so many minutes if max_tsteps are not done by then; lr_decay ends then too"
    )
    initial_weights: str | None = Field(
        None,
        description="a trained model whose weights the training begins with, shipped: the one that ships; its model "
        "section must be this one's, but for image_size, dropout and fewer n_res_blocks",
    )
    batch_size: Count = Field(16, description="pairs of a micro-batch in each process")
    accumulate: Count = 1
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto: a GPU where there is one")
    devices: Literal["auto"] | Count = Field(
        1, description="processes on a machine, one on each GPU; auto: as many as GPUs, or as the launcher started"
    )
    nodes: Count = Field(1, description="machines; torchrun or SLURM starts the processes on them")
    learning_rate: Annotated[float, Field(gt=0, le=1e30)] = 2e-6
    lr_decay: Literal["constant", "linear", "cosine"] = "constant"
    warmup: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 0.01
    betas: Annotated[list[Decay], Field(min_length=2, max_length=2)] = Field([0.9, 0.999])
    gradient_clip: NonNegative = Field(1.0, description="clip the norm of the gradient; 0 turns it off")
    loss_type: LossName = Field("l2", description="capitals (L1) are the same")
    huber_delta: Positive = 1.0
    min_snr_gamma: Positive | None = None
    neighbour_std: Positive | None = Field(
        None,
        description="weigh errors so that every time and noise level counts the same, for images whose pixels differ "
        "from a prediction by their neighbours by this standard deviation on [-1, 1] (0.05)",
    )
    start_fraction: Fraction = Field(0.0, description="share of the training times put at the start of the path")
    precision: Literal["auto", "32", "bf16", "fp16"] = Field(
        "32", description="of the layers, mixed with 32; auto: bf16 where the device computes in it, else fp16 on a GPU"
    )
    compile: bool = Field(
        False,
        description="compile the network for training (torch.compile): faster on a GPU after the first step, which "
        "takes a minute or more",
    )
    use_ema: bool = True
    ema_decay_factor: Decay = 0.9999
    ema_warmup: bool = Field(True, description="decay min(ema_decay_factor, (1 + n) / (10 + n)) at update n")
    val_every: Count = Field(1000, description="validate every n steps")
    checkpoint_every: Count = Field(500, description="save last.ckpt every n steps")
    picture_every: Annotated[int, Field(ge=0)] = Field(1000, description="draw denoising steps every n steps; 0: never")
    log_every: Count = 50
    wandb: bool = False

    @field_validator("loss_type", mode="before")
    @classmethod
    def _without_capitals(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) and value.lower() in get_args(LossName) else value


class SamplingConfig(Section):
    """How an image is drawn: used for the pictures in training and by ``denoise``."""

    solver: Annotated[str, AfterValidator(_known_solver)] = "ddim"
    steps: Count = 200
    eta: Fraction = Field(0.0, description="ddim: 0 deterministic, 1 the noise of ddpm")
    spacing: SpacingName = "trailing"
    times: Annotated[list[NotNegative], Field(min_length=1)] | None = Field(
        None, description="the times to visit, falling, in place of steps and spacing"
    )
    start_from: StartName = Field(
        "noise", description="y: begin in the middle of the path, with the noisy input as a latent"
    )
    start_level: Positive | None = Field(
        None, description="start_from y: noise c / a of the first time, on [-1, 1]; none: 3 times the input's noise"
    )
    clip: bool = Field(True, description="clip x0_hat to [-1, 1] at every step, deriving eps again")
    dynamic_threshold: Fraction | None = Field(
        None, description="in place of clip: the quantile of |x0_hat| brought to 1 where above (0.995); darkens images"
    )
    keep_mean: bool | None = Field(
        None,
        description="give every x0_hat the mean of the condition, free of the noise's bias; none: for eps, which says "
        "next to nothing of the mean at the noisy end",
    )
    estimate: EstimateName = "sample"
    samples: Count = Field(8, description="K of estimate mean-of-k")
    orientations: Literal[1, 2, 4] = Field(
        1, description="mirror images of each image that the network sees, for the mean of what it makes of them"
    )
    planes: Literal["auto", 1, 3] = Field(
        "auto",
        description="3: restore the slices along rows and columns of a volume too, for the mean of the three; auto: "
        "where the estimate is the mean, voxels are near cubes and the model is told the texture of the noise",
    )
    strength: Fraction = Field(
        1.0, description="share of what a small lesion would lose that is taken away: 0 gives the scan back"
    )
    keep_low_frequencies: Annotated[float | str, AfterValidator(_cutoff)] | None = Field(
        None,
        description="cycles a pixel up to which slices keep the scan's own frequencies; auto: 0.02",
    )
    tile: Count | None = Field(None, description="side of the sliding window in pixels; none: image_size of the model")
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25

    @model_validator(mode="after")
    def _falling(self) -> SamplingConfig:
        for now, after in pairwise(self.times or []):
            if after >= now:
                raise ValueError(f"times has {now} then {after}, expected them to fall")
        return self


class Config(Section):
    """Everything a run needs; written beside the checkpoint as config.yaml."""

    name: str = "run"
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    sampling: SamplingConfig = SamplingConfig()

    @property
    def further_channels(self) -> int:
        """Condition channels beside the noisy image's own and its level: of neighbouring slices and other contrasts."""
        return 2 * self.data.neighbours * self.model.channels + len(self.data.contrasts)

    @model_validator(mode="after")
    def _further_channels_are_used(self) -> Config:
        if self.further_channels and self.model.conditioning_key == "none":
            name = "neighbours" if self.data.neighbours else "contrasts"
            raise ValueError(f"data.{name} is given with conditioning_key none, expected a condition")
        return self

    @model_validator(mode="after")
    def _maps_have_a_channel(self) -> Config:
        if self.data.level_map_share > 0 and not self.model.level_channel:
            raise ValueError("level_map_share is given with level_channel false, expected true")
        return self

    @model_validator(mode="after")
    def _noise_to_divide_by(self) -> Config:
        model, training = self.model, self.training
        by_level = model.parameterization == "precond" and model.sigma_r is None and model.regression is None
        if self.data.noise.sigma_range() == (0, 0) and (by_level or training.neighbour_std is not None):
            name = "parameterization precond" if by_level else "neighbour_std"
            raise ValueError(f"data.noise has a standard deviation of 0 with {name}, expected more")
        return self

    @model_validator(mode="after")
    def _weights_have_what_they_need(self) -> Config:
        model, training = self.model, self.training
        if training.neighbour_std is None:
            return self
        if training.min_snr_gamma is not None:
            raise ValueError("min_snr_gamma and neighbour_std are given, expected one of them")
        if model.conditioning_key == "none":
            raise ValueError("neighbour_std is given with conditioning_key none, expected a condition")
        return self
