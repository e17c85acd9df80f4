"""The contact sheet: training pairs as the network sees them, and x_t at several times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cdm4mi.diffusion.noise import generator
from cdm4mi.files import replacing_file
from cdm4mi.measure.pictures import DIFFERENCE
from cdm4mi.models import build_process
from cdm4mi.planning.checks.subject import Subject, spread_out

ROWS = 6
TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Times at which x_t is drawn, as shares of the path."""
SIDE = 1.5
MOST_DIFFERENCE = 0.5


def contact_sheet(path: Path, subject: Subject) -> None:
    """Draw target, condition, their difference and x_t at several t as a PNG, one row for each training pair.

    Target and condition are drawn from -1 to 1, the difference in its colours from -0.5 to 0.5, and x_t, whose scale
    changes with t, in its own contrast.
    """
    process = build_process(subject.config.model)
    last = process.path.timesteps - 1
    times = [round(part * last) for part in TIMES]
    pairs = spread_out(subject.pairs, ROWS)
    columns = ["target", "condition", "difference", *(f"x_t, t = {t}" for t in times)]
    figure = Figure(figsize=(SIDE * len(columns), SIDE * len(pairs) + 0.3), facecolor="black")
    FigureCanvasAgg(figure)
    axes = np.atleast_2d(figure.subplots(len(pairs), len(columns), squeeze=False))
    for row, pair in enumerate(pairs):
        x0, y = pair["x0"][None], process.noisy_image(pair["y"][None])
        eps = torch.randn(x0.shape, generator=generator(subject.config.seed, row))
        x_t = [process.path.q_sample(x0, torch.tensor([t]), eps, y if process.path.is_bridge else None) for t in times]
        images = [x0, y, y - x0, *x_t]
        for column, image in enumerate(images):
            drawn = image[0].float().mean(0).numpy()  # of colour, its brightness
            low, high = (-1.0, 1.0) if column < 2 else (-MOST_DIFFERENCE, MOST_DIFFERENCE)
            if column > 2:
                low, high = (float(v) for v in np.percentile(drawn, (1, 99)))
            panel = axes[row, column]
            colours = DIFFERENCE if column == 2 else "gray"
            panel.imshow(drawn, cmap=colours, vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
            panel.set_axis_off()
            if row == 0:
                panel.set_title(columns[column], color="white", fontsize=9, pad=4)
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.01, top=1 - 0.3 / (SIDE * len(pairs) + 0.3), wspace=0.04, hspace=0.04
    )
    with replacing_file(path) as temporary:
        figure.savefig(temporary, dpi=110, facecolor="black")
