"""The white-noise model and the models beside it: what each changes in base.yaml, as overrides of the command line."""

METHODS: dict[str, list[str]] = {
    # the default, which ships
    "default": [
        "path=residual",
        "start_fraction=0.5",
        "neighbour_std=0.05",
        "sampling.solver=dpmpp_2m",
        "spacing=logsnr",
        "steps=10",
        "estimate=mean",
    ],
    # precond at zero terminal SNR holds no image at its last time: a residual regression, trained at that time alone
    "regression": [
        "beta_schedule=log_sigma",
        "zero_terminal_snr=true",
        "parameterization=precond",
        "start_fraction=1.0",
    ],
    # as the original work states it
    "eps": ["beta_schedule=linear", "parameterization=eps"],
    "x0": ["beta_schedule=linear", "parameterization=x0"],
    # the same without a condition: a prior of clean images
    "prior": [
        "beta_schedule=linear",
        "parameterization=eps",
        "conditioning_key=none",
        "in_channel=1",
        "level_channel=false",
    ],
}
