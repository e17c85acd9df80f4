"""The small network before and after: what each changes in base.yaml, as overrides of the command line."""

METHODS: dict[str, list[str]] = {
    "before": [],
    "after": ["norm_groups=8", "mean_from=condition"],
}
