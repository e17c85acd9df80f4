"""MR-like slices of a head in scanner units: scalp, skull, folded cortex, nuclei, ventricles, lesions, coil bias."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.data.phantom_canvas import Canvas

TISSUES = ("fat", "muscle", "bone", "csf", "grey", "white", "deep", "lesion", "vessel", "eye")
# Mean intensity of each tissue by weighting: textbook contrast, which a seed then varies by some ten percent.
CONTRASTS = {
    "T1": (950, 380, 40, 110, 430, 640, 500, 330, 150, 130),
    "T1 with contrast agent": (900, 420, 40, 120, 400, 500, 440, 850, 900, 140),
    "T2": (620, 180, 30, 950, 520, 330, 400, 800, 60, 980),
    "FLAIR": (500, 250, 30, 70, 480, 370, 420, 820, 80, 90),
    "PD": (600, 480, 40, 560, 720, 590, 640, 760, 90, 540),
}


def draw_mr(rng: np.random.Generator, size: int) -> NDArray[Any]:
    """One slice, (size, size), 0 to about 1000 units, before the scanner's blur."""
    c = Canvas(rng, size, 0.0, fit=(1.05, 1.3))
    name = rng.choice(list(CONTRASTS), p=[0.5, 0.15, 0.15, 0.1, 0.1])
    tissue = {key: value * rng.uniform(0.87, 1.13) for key, value in zip(TISSUES, CONTRASTS[name], strict=True)}
    stripped = rng.random() < 0.35
    low = rng.random() < 0.3
    a = rng.uniform(0.6, 0.74)
    b = a * rng.uniform(1.1, 1.32)
    head = c.blob(0, 0, a, b, wobble=0.03)
    brain = _scalp_and_skull(c, head, tissue, low, a, b)
    cover = c.coverage(brain + 0.5)
    inner = _base(c, brain, tissue, a, b) if low else _cerebrum(c, brain, tissue, a, b)
    _lesions(c, inner, tissue, a, b)
    _vessels(c, brain, tissue)
    if stripped:
        c.image *= cover
    grain = 1 + 0.02 * c.field(size / 1.8) + 0.02 * c.field(c.per_unit(30))
    bias = np.exp(rng.uniform(0.03, 0.16) * c.field(2))
    return np.clip(c.image * grain * bias, 0, None)


def _scalp_and_skull(
    c: Canvas, head: NDArray[Any], tissue: dict[str, float], low: bool, a: float, b: float
) -> NDArray[Any]:
    """Skin, fat with septa, muscle, dark bone with bright marrow; returns the distance inside the dura."""
    rng = c.rng
    if low and rng.random() < 0.7:
        for side in (-1, 1):  # ears
            ear = c.blob(side * (a + 0.05), 0.08, 0.05, 0.14, side * 0.3, 0.2)
            c.paint(ear, tissue["fat"] * (0.6 + 0.3 * (c.field(c.per_unit(20)) > 0)))
    c.paint(head, tissue["muscle"])
    scalp = rng.uniform(0.05, 0.09) * (1 + 0.3 * c.field(3)) * c.px
    c.paint(np.minimum(head - 0.018 * c.px, scalp - head), tissue["fat"] * (1 + 0.12 * c.field(c.per_unit(26), 2)))
    septa = np.abs(c.level_set(c.field(c.per_unit(18))))
    c.paint(np.minimum(0.4 - septa, np.minimum(head - 2, scalp - head)), tissue["muscle"])
    skull = head - scalp
    c.paint(skull, tissue["bone"])
    thick = rng.uniform(0.05, 0.085) * c.px
    marrow = np.minimum(skull - 0.25 * thick, 0.75 * thick - skull)
    c.paint(np.minimum(marrow, c.level_set(c.field(9), -0.6)), tissue["fat"] * rng.uniform(0.3, 0.75))
    if low:
        _face(c, tissue, b)
    brain = skull - thick
    c.paint(brain, tissue["csf"] * 0.8 + 0.2 * tissue["muscle"])
    return brain - 0.5


def _face(c: Canvas, tissue: dict[str, float], b: float) -> None:
    """Eyes in fat with their muscles, and the air cells between them."""
    rng = c.rng
    y = -b * rng.uniform(0.72, 0.8)
    c.paint(c.blob(0, y, 0.17, 0.24, wobble=0.1), tissue["muscle"])
    c.paint(np.minimum(c.level_set(c.field(c.per_unit(17)), 0.1), c.blob(0, y, 0.15, 0.22)), 10.0)
    for side in (-1, 1):
        x = side * rng.uniform(0.27, 0.31)
        c.paint(c.blob(x, y + 0.1, 0.16, 0.22, side * 0.3, 0.06), tissue["fat"])
        for shift in (-0.08, 0.0, 0.08):
            c.line(x + shift, y + 0.05, x - side * 0.08, y + 0.3, 0.015, 0.012, tissue["muscle"])
        eye = c.blob(x, y, 0.11, 0.115, wobble=0.02)
        c.paint(eye + 0.015 * c.px, tissue["muscle"])
        c.paint(eye, tissue["eye"])
        c.paint(c.blob(x, y - 0.08, 0.05, 0.022, wobble=0.02), tissue["muscle"])


def _folds(c: Canvas, outer: NDArray[Any], tissue: dict[str, float], knots: float, reach: float, sulcus: float) -> None:
    """A grey ribbon on the outside and along sulci (zero lines of a random field) that end at depth ``reach``."""
    rng = c.rng
    # radial lines bent by a smooth field, broken by a finer one: the labyrinth of gyri
    angle = np.arctan2(c.y - 0.05, c.x + 0.2 * np.where(c.x > 0, 1, -1))
    warp = np.cos(knots * angle + 1.6 * c.field(c.per_unit(6))) + 0.75 * c.field(c.per_unit(1.4 * knots))
    line = np.abs(c.level_set(warp))
    fade = np.clip(1 - outer / (reach * (1 + 0.3 * c.field(5)) * c.px), -1, 1)
    ribbon = rng.uniform(0.034, 0.046) * c.px
    c.paint(outer, tissue["white"] * (1 + 0.025 * c.field(c.per_unit(12), 2)))
    grey = np.maximum(ribbon - outer, np.where(fade > -0.15, ribbon * np.clip(fade + 0.75, 0, 1) - line, -9))
    c.paint(np.minimum(grey, outer), tissue["grey"] * (1 + 0.03 * c.field(c.per_unit(24))))
    cleft = sulcus * c.px * np.clip(fade + 0.25, 0, 1)
    # a cleft thinner than a pixel still darkens it
    depth = np.clip(cleft, 0, 1)
    alpha = depth * c.coverage(np.minimum(np.maximum(cleft, 0.5) - line, outer))
    c.image += alpha * (tissue["csf"] - c.image)


def _cerebrum(c: Canvas, brain: NDArray[Any], tissue: dict[str, float], a: float, b: float) -> NDArray[np.floating]:
    """Hemispheres above the base: cortex, white matter, ventricles, basal ganglia, fissure."""
    rng = c.rng
    gap = rng.uniform(0.004, 0.014) * c.px
    midline = np.abs(c.x + 0.015 * c.field(4)) * c.px
    top = rng.random() < 0.45
    if top:
        hemispheres = np.minimum(brain, midline - gap)
    else:  # the fissure ends at the corpus callosum
        bridge = c.blob(0, rng.uniform(-0.02, 0.05), 0.2, b * rng.uniform(0.36, 0.46), wobble=0.04)
        hemispheres = np.minimum(brain, np.maximum(midline - gap, bridge))
    atrophy = rng.uniform(0.003, 0.014)
    hemispheres = hemispheres - rng.uniform(0, 0.02) * c.px
    _folds(c, hemispheres, tissue, rng.uniform(9, 13), rng.uniform(0.16, 0.26), atrophy)
    if not top:
        for side in (-1, 1):
            x, tilt = side * rng.uniform(0.33, 0.38) * a / 0.65, -side * rng.uniform(0.0, 0.3)
            c.paint(np.minimum(c.blob(x, -0.02, 0.065, 0.24, tilt, 0.25), brain), tissue["grey"])
            c.paint(np.minimum(c.blob(x, -0.02, 0.012 + atrophy, 0.2, tilt, 0.3), brain), tissue["csf"])
            tilt = side * rng.uniform(0.2, 0.4)
            c.paint(c.blob(side * 0.1, 0.1, 0.08, 0.12, tilt, 0.06), tissue["deep"])
            c.paint(c.blob(side * 0.23, 0.0, 0.05, 0.14, tilt, 0.08), tissue["deep"])
            c.paint(c.blob(side * 0.1, -0.15, 0.05, 0.09, tilt, 0.06), tissue["deep"])
            width = rng.uniform(0.02, 0.06)
            horn = c.blob(side * 0.065, -0.17, width, rng.uniform(0.08, 0.14), -side * rng.uniform(0.1, 0.5), 0.1)
            tail = c.blob(side * 0.2, 0.3, width, rng.uniform(0.08, 0.16), -side * rng.uniform(0.1, 0.6), 0.12)
            body = c.blob(side * 0.05, 0.0, width * 0.8, 0.2, 0.0, 0.15)
            parts = [horn, tail] if rng.random() < 0.5 else [horn, body]
            c.paint(np.maximum(*parts), tissue["csf"])
            plexus = np.minimum(c.level_set(c.field(c.per_unit(40)), 0.5), parts[1])
            c.paint(plexus, 0.5 * (tissue["grey"] + tissue["csf"]))
        c.paint((0.012 - np.abs(c.x)) * c.px - np.maximum(np.abs(c.y - 0.1) - 0.1, 0) * c.px, tissue["csf"])
    inside: NDArray[np.floating] = hemispheres - 0.1 * c.px
    return inside


def _base(c: Canvas, brain: NDArray[Any], tissue: dict[str, float], a: float, b: float) -> NDArray[np.floating]:
    """Low slice: temporal lobes, cerebellum with fine leaves, brain stem with the fourth ventricle."""
    rng = c.rng
    stem_y = rng.uniform(-0.05, 0.08)
    lobes = np.full_like(c.image, -99.0)
    for side in (-1, 1):
        lobe = c.blob(side * a * 0.52, -0.2, a * 0.36, b * rng.uniform(0.3, 0.4), side * -0.35, 0.08)
        lobes = np.maximum(lobes, lobe)
        frontal = c.blob(side * a * 0.22, -b * 0.6, a * 0.24, b * rng.uniform(0.2, 0.34), side * 0.2, 0.1)
        lobes = np.maximum(lobes, frontal)
    lobes = np.minimum(lobes, brain)
    _folds(c, lobes, tissue, rng.uniform(9, 12), 0.14, rng.uniform(0.004, 0.012))
    cerebellum = np.minimum(c.blob(0, 0.42, a * 0.72, b * 0.36, wobble=0.06, squareness=0.4), brain)
    rho = np.hypot(c.x, (c.y - stem_y - 0.15) / 0.85)
    phase = rho * rng.uniform(80, 140) + 4 * c.field(c.per_unit(7))
    leaves = 0.5 + 0.5 * np.sin(phase)
    arbor = np.clip(cerebellum / (0.16 * c.px) + 0.4 * c.field(c.per_unit(10)), 0, 1)
    outer_leaf = tissue["grey"] + leaves * 0.25 * (tissue["csf"] - tissue["grey"])
    inner_leaf = tissue["grey"] + (1 - leaves) * 0.6 * (tissue["white"] - tissue["grey"])
    c.paint(cerebellum, outer_leaf + arbor * (inner_leaf - outer_leaf))
    c.paint(cerebellum - (0.17 + 0.05 * c.field(c.per_unit(9))) * c.px, tissue["white"])
    c.paint(
        c.blob(0, stem_y, rng.uniform(0.15, 0.2), rng.uniform(0.13, 0.18), wobble=0.06),
        0.5 * (tissue["white"] + tissue["deep"]),
    )
    c.paint(c.blob(0, stem_y + 0.2, rng.uniform(0.04, 0.09), rng.uniform(0.03, 0.06), wobble=0.15), tissue["csf"])
    c.disc(rng.normal(0, 0.02), stem_y - 0.2, rng.uniform(0.015, 0.025), tissue["vessel"])
    for side in (-1, 1):
        c.line(side * 0.16, stem_y + 0.04, side * 0.28, stem_y + 0.03, 0.012, 0.006, tissue["deep"])
        c.disc(side * rng.uniform(0.12, 0.2), stem_y - 0.3, rng.uniform(0.02, 0.035), tissue["vessel"])
    inside: NDArray[np.floating] = np.maximum(lobes, cerebellum) - 0.1 * c.px
    return inside


def _lesions(c: Canvas, inner: NDArray[Any], tissue: dict[str, float], a: float, b: float) -> None:
    """White-matter spots, and sometimes a mass with a rim, a core and oedema around it."""
    rng = c.rng
    for _ in range(rng.poisson(2.5)):
        x, y, r = rng.uniform(-0.6, 0.6) * a, rng.uniform(-0.6, 0.6) * b, rng.uniform(0.008, 0.035)
        spot = np.minimum(c.blob(x, y, r, r * rng.uniform(0.6, 1), rng.uniform(0, 3), 0.2), inner)
        c.paint(spot, tissue["lesion"])
    if rng.random() < 0.3:
        x, y, r = rng.uniform(-0.5, 0.5) * a, rng.uniform(-0.5, 0.5) * b, rng.uniform(0.06, 0.16)
        mass = np.minimum(c.blob(x, y, r, r * rng.uniform(0.7, 1), rng.uniform(0, 3), 0.2), inner + 0.06 * c.px)
        halo = np.clip(mass / (0.08 * c.px) + 1, 0, 1) * c.coverage(inner)
        c.image += 0.5 * halo * (0.5 * (tissue["csf"] + tissue["grey"]) - c.image)
        c.paint(mass, tissue["lesion"] * (1 + 0.12 * c.field(c.per_unit(36), 2)))
        c.paint(mass - rng.uniform(0.3, 0.8) * r * c.px, 0.6 * tissue["csf"] + 0.4 * tissue["grey"])


def _vessels(c: Canvas, brain: NDArray[Any], tissue: dict[str, float]) -> None:
    """Surface and penetrating vessels, one or two pixels wide."""
    rng = c.rng
    inside = c.coverage(brain)
    bright = tissue["vessel"] > tissue["grey"]
    for _ in range(rng.integers(3, 8) if bright else rng.integers(0, 3)):
        angle = rng.uniform(0, 2 * np.pi)
        start = 0.55 * np.cos(angle), 0.65 * np.sin(angle)
        c.tree(*start, angle + np.pi + rng.normal(0, 0.9), 0.12, 0.007, tissue["vessel"], inside, depth=1)
