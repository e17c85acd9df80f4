"""The compared ways to a restoration: what each changes in base.yaml, as overrides of the command line."""

METHODS: dict[str, list[str]] = {
    # precond at zero terminal SNR holds no image at its last time: a residual regression, trained at that time alone
    "regression": [
        "beta_schedule=log_sigma",
        "zero_terminal_snr=true",
        "parameterization=precond",
        "start_fraction=1.0",
    ],
    "ddpm-eps": ["beta_schedule=linear", "parameterization=eps"],
    "ddpm-x0": ["beta_schedule=linear", "parameterization=x0"],
    "ddpm-v": ["beta_schedule=linear", "zero_terminal_snr=true", "parameterization=v"],
    # the default: half of the training where the mean is decided, and every time's loss of one size
    "default": ["path=residual", "start_fraction=0.5", "neighbour_std=0.05"],
    # the same without that weight, and with more training where the mean is decided
    "precond-75": ["path=residual", "start_fraction=0.75"],
    # told the noise level and trained for a range of it, beside the others' one level
    "range": ["path=residual", "start_fraction=0.75", "level_channel=true", "in_channel=3", "variance=[0.0064, 0.25]"],
    "bridge": ["path=bridge", "bridge_noise=0.25", "start_fraction=0.25"],
    "i2sb": ["path=i2sb", "bridge_noise=0.45", "start_fraction=0.25"],
    # CorrDiff's way, in the same budget: half of it for a regression, half for the residual that it leaves
    "regression-half": [
        "beta_schedule=log_sigma",
        "zero_terminal_snr=true",
        "parameterization=precond",
        "start_fraction=1.0",
        "max_tsteps=1000",
    ],
    "corrdiff": [
        "path=residual",
        "model.regression=runs/paths/regression-half/checkpoints/last.ckpt",
        "sigma_max=1.0",
        "max_tsteps=1000",
    ],
}
