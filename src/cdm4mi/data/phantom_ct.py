"""CT-like axial slices in HU: chest, abdomen, pelvis and head, made of random shapes, not of scans."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.data.phantom_canvas import Canvas

AIR, FAT, MUSCLE, BLOOD = -1000.0, -100.0, 55.0, 45.0


def draw_ct(rng: np.random.Generator, size: int) -> NDArray[Any]:
    """One slice, (size, size) HU, before the scanner's blur."""
    c = Canvas(rng, size, AIR, fit=(0.9, 1.1))
    if rng.random() < 0.9:
        _table(c)
    region = rng.choice(4, p=[0.4, 0.3, 0.2, 0.1])
    (_chest, _abdomen, _pelvis, _head)[region](c)
    return c.image


def _table(c: Canvas) -> None:
    """A curved couch under the patient: two thin shells around foam."""
    rng = c.rng
    top, curve, thick = rng.uniform(0.74, 0.86), rng.uniform(-0.12, 0.25), rng.uniform(0.05, 0.12)
    depth = c.y - (top - curve * c.x**2)
    across = 0.85 - np.abs(c.x)
    c.paint(np.minimum(np.minimum(depth, thick - depth), across) * c.px, rng.uniform(-960, -850))
    for at in (0.0, thick):
        c.paint(np.minimum(0.012 - np.abs(depth - at), across) * c.px, rng.uniform(-450, -50))


def _trunk(c: Canvas, height: tuple[float, float]) -> tuple[NDArray[Any], float, float]:
    """Skin, fat and a muscle wall; returns the distance inside the wall and the trunk's half-axes."""
    rng = c.rng
    a = rng.uniform(0.78, 0.9)
    b = a * rng.uniform(*height)
    body = c.blob(0, 0.02, a, b, wobble=0.035, squareness=rng.uniform(0, 0.6))
    fat = rng.uniform(0.03, 0.13) * c.px
    fat_here = fat * (1 + 0.35 * c.field(3))
    c.paint(body, 10.0)
    c.paint(body - max(0.016 * c.px, 0.8), FAT + 8 * c.field(c.per_unit(30), 2))
    strands = c.field(c.per_unit(14), 2)
    c.paint(np.minimum(0.35 - np.abs(c.level_set(strands)) * 0.7, body - 3), -40.0)
    wall = body - fat_here - 0.016 * c.px
    fibre = c.field(c.per_unit(22), 2)
    c.paint(wall, MUSCLE + 8 * fibre)
    # sheets of fat between the muscles run along the wall
    layer = rng.uniform(0.035, 0.06) * c.px
    sheet = np.abs(wall - layer * (1 + 0.3 * c.field(6)))
    c.paint(np.where(c.field(5) > -0.3, 0.009 * c.px - sheet + 0.2, -1.0), -70.0)
    return wall, a, b


def _bone(c: Canvas, shape: NDArray[Any], cortex: float = 0.018, marrow: float = 150.0) -> None:
    """A bone: dense shell, spongy inside."""
    c.paint(shape, c.rng.uniform(700, 1300))
    sponge = c.field(c.size / 2.5) * 0.7 + c.field(c.per_unit(12)) * 0.7
    c.paint(shape - max(cortex * c.px, 0.9), marrow + 70 * sponge)


def _spine(c: Canvas, y: float, s: float, wall: NDArray[Any]) -> NDArray[Any]:
    """Vertebra with canal, arch and processes, and the muscles beside it; returns the body's distance."""
    rng = c.rng
    for side in (-1, 1):
        muscle = c.blob(side * 1.5 * s, y + 1.5 * s, 1.25 * s, 0.85 * s, tilt=-side * 0.25, wobble=0.1)
        muscle = np.minimum(muscle, wall)
        marbling = c.field(c.per_unit(40)) + 0.5 * c.field(c.per_unit(18))
        c.paint(muscle + 0.012 * c.px, FAT + 15)
        c.paint(muscle, np.where(marbling > rng.uniform(1.0, 1.8), -30.0, MUSCLE + 6 * marbling))
    density = rng.uniform(600, 1100)
    for side in (-1, 1):
        tip = y + (1.1 + 0.3 * rng.random()) * s
        c.line(side * 0.7 * s, y + 0.9 * s, side * 1.8 * s, tip, 0.24 * s, 0.12 * s, density * 0.7)
    arch = c.blob(0, y + 1.15 * s, 0.85 * s, 0.75 * s, wobble=0.08)
    c.paint(arch, density * 0.8)
    c.line(0, y + 1.75 * s, 0, y + (2.3 + 0.7 * rng.random()) * s, 0.2 * s, 0.14 * s, density * 0.7)
    body = c.blob(0, y, s, 0.78 * s, wobble=0.07, squareness=0.5)
    _bone(c, body, cortex=0.1 * s, marrow=rng.uniform(110, 260))
    c.paint(c.blob(0, y + 1.1 * s, 0.52 * s, 0.44 * s, wobble=0.04), rng.uniform(-20, 20))
    c.paint(c.blob(0, y + 1.1 * s, 0.3 * s, 0.26 * s, wobble=0.04), 40.0)
    return body


def _ribs(c: Canvas, ring: NDArray[Any], theta: NDArray[Any], a: float) -> None:
    """Ribs cut obliquely: short arcs along the chest wall."""
    rng = c.rng
    count = rng.integers(7, 12)
    at = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.normal(0, 0.12, count) + rng.uniform(0, 1)
    at = ((at % (2 * np.pi)) - np.pi).astype(np.float32)
    length = (rng.uniform(0.04, 0.16, count) * a).astype(np.float32)
    thick = rng.uniform(0.022, 0.034, count).astype(np.float32)
    shape = np.full_like(c.image, -9.0)
    for k in range(count):
        arc = (np.pi - np.abs(np.pi - np.abs(theta - at[k]))) * (a * 0.8)
        skew = rng.uniform(-0.15, 0.15) * (arc * c.px)
        end = np.minimum(length[k] - arc, 0) * c.px
        shape = np.maximum(shape, thick[k] * c.px - np.hypot(np.abs(ring + skew), end))
    _bone(c, shape, cortex=0.012, marrow=rng.uniform(150, 350))


def _lung(c: Canvas, lung: NDArray[Any], hilum: tuple[float, float], side: int) -> None:
    """Parenchyma with a dependent gradient, a vessel tree, fissures, bronchi and sometimes disease."""
    rng = c.rng
    inside = c.coverage(lung - 0.5)
    fine = c.field(c.size / 1.6)
    texture = 18 * c.field(c.per_unit(10), 2) + 20 * fine
    c.paint(lung, rng.uniform(-900, -800) + 70 * (c.y + 0.1) + texture)
    if rng.random() < 0.25:  # ground glass, reticulation or emphysema
        patch = np.clip(c.field(4) - rng.uniform(0.2, 1.0), 0, 1) * inside
        c.image += patch * rng.choice([350.0, 500.0, -80.0]) * (1 + 0.4 * c.field(c.size / 3))
    for knots in (38, 60):  # vessels seen end on
        c.image += inside * 1000 * np.clip(c.field(c.per_unit(knots)) - 1.5, 0, 0.8)
    web = 1 - np.abs(c.field(c.per_unit(18))) / 0.08
    c.image += inside * 120 * np.clip(web, 0, 1) * (c.field(8) > 0)
    fissure = c.y - hilum[1] - rng.uniform(-0.1, 0.1) - rng.uniform(-0.8, 0.8) * (c.x - hilum[0]) - 0.5 * c.x**2
    c.image += inside * rng.uniform(60, 160) * np.clip(1.2 - np.abs(fissure) * c.px, 0, 1)
    for _ in range(rng.integers(2, 5)):
        angle = (0.0 if side > 0 else np.pi) + rng.uniform(-1.5, 1.5)
        length, radius = rng.uniform(0.1, 0.2), rng.uniform(0.012, 0.022)
        c.tree(*hilum, angle, length, radius, rng.uniform(-50, 60), inside, depth=4)
    for _ in range(rng.integers(2, 6)):  # bronchi: a wall around air
        x, y = hilum[0] + side * rng.uniform(0.02, 0.3), hilum[1] + rng.uniform(-0.2, 0.2)
        radius = rng.uniform(0.012, 0.026)
        c.disc(x, y, radius * 1.6, -150.0, inside)
        c.disc(x, y, radius, -950.0, inside)
    if rng.random() < 0.3:
        x, y, radius = hilum[0] + side * rng.uniform(0.1, 0.4), rng.uniform(-0.3, 0.3), rng.uniform(0.015, 0.07)
        c.paint(np.minimum(c.blob(x, y, radius, radius * rng.uniform(0.7, 1), wobble=0.3), lung), rng.uniform(-100, 60))


def _heart(c: Canvas, heart: NDArray[Any], x: float, y: float, contrast: float) -> None:
    """Myocardium with brighter chambers, fat in the grooves and calcified coronaries."""
    rng = c.rng
    c.paint(heart + 0.03 * c.px, FAT + 5 * c.field(20))
    c.paint(heart, MUSCLE + 0.35 * contrast + 6 * c.field(c.per_unit(20), 2))
    for _ in range(rng.integers(2, 5)):
        cx, cy = x + rng.uniform(-0.14, 0.14), y + rng.uniform(-0.12, 0.12)
        chamber = c.blob(cx, cy, rng.uniform(0.07, 0.13), rng.uniform(0.05, 0.1), rng.uniform(0, 3), wobble=0.2)
        c.paint(np.minimum(chamber, heart - 0.03 * c.px), BLOOD + contrast * rng.uniform(0.7, 1.1))
    groove = c.field(c.per_unit(7))
    c.paint(np.minimum(0.6 - np.abs(c.level_set(groove)), heart), -50.0)
    if rng.random() < 0.4:
        c.disc(x + rng.uniform(-0.15, 0.15), y - 0.15, rng.uniform(0.008, 0.02), 700.0)


def _chest(c: Canvas) -> None:
    rng = c.rng
    wall, a, b = _trunk(c, (0.62, 0.78))
    contrast = float(rng.choice([0.0, 0.0, 120.0, 220.0]))
    chest_wall = rng.uniform(0.1, 0.15)
    cavity = np.minimum(wall - chest_wall * c.px, c.blob(0, 0, a * 0.84, b * 0.86, wobble=0.04))
    theta = np.arctan2(c.y / b, c.x / a)
    for side in (-1, 1):  # shoulder blades
        x, y = side * a * rng.uniform(0.6, 0.75), b * rng.uniform(0.45, 0.6)
        blade = c.blob(x, y, rng.uniform(0.15, 0.25), 0.022, tilt=side * rng.uniform(-1.1, -0.5), wobble=0.2)
        _bone(c, np.minimum(blade, wall), cortex=0.01, marrow=300)
    _ribs(c, cavity + 0.03 * c.px, theta, a)
    sternum = c.blob(rng.normal(0, 0.02), -b * 0.86 + 0.03, rng.uniform(0.06, 0.12), 0.03, wobble=0.1)
    _bone(c, sternum, cortex=0.01, marrow=200)
    # the middle: fat between the lungs, filled with heart, vessels and airways
    c.paint(cavity, FAT + 15 * c.field(c.per_unit(16), 2))
    spine_y, s = b * rng.uniform(0.42, 0.52), rng.uniform(0.11, 0.14)
    upper = rng.random() < 0.4  # above the heart: great vessels and windpipe
    hx, hy, hr = rng.uniform(0.02, 0.14), rng.uniform(-0.14, -0.02), rng.uniform(0.2, 0.32)
    middle = c.blob(0.02, 0.0, rng.uniform(0.12, 0.2), b * 0.9, wobble=0.15)
    heart = c.blob(hx, hy, hr, hr * rng.uniform(0.65, 0.9), tilt=rng.uniform(0.2, 0.8), wobble=0.08)
    heart = np.minimum(heart, cavity - 1) - (np.inf if upper else 0.0)
    spine = _spine(c, spine_y, s, wall)
    hollow = np.maximum(np.maximum(middle, heart + 0.03 * c.px), spine + 0.03 * c.px)
    if rng.random() < 0.35:  # the dome of the liver
        dome = c.blob(-a * 0.42, 0.0, a * rng.uniform(0.15, 0.36), b * rng.uniform(0.3, 0.6), wobble=0.08)
        hollow = np.maximum(hollow, dome)
        c.paint(np.minimum(dome, cavity), 60 + 0.3 * contrast + 5 * c.field(c.size / 3))
        c.tree(-0.25, 0, np.pi, 0.12, 0.02, 45 + 0.7 * contrast, c.coverage(np.minimum(dome, cavity)), 3)
    if not upper:
        _heart(c, heart, hx, hy, contrast)
    lungs = np.minimum(cavity - 0.012 * c.px, -hollow)
    for side in (-1, 1):
        half = np.minimum(lungs, side * (c.x - 0.0) * c.px)
        _lung(c, half, (side * rng.uniform(0.16, 0.24), rng.uniform(0.0, 0.14)), side)
    vessels = [(0.1, spine_y - 0.9 * s, 0.065)]
    if upper:
        vessels += [(-0.04, -0.16, 0.075), (-0.12, -0.13, 0.045), (0.07, -0.12, 0.06), (0.0, -0.25, 0.04)]
    for x, y, r in vessels:
        r *= rng.uniform(0.8, 1.2)
        c.disc(x, y, r * 1.12, MUSCLE)
        c.disc(x, y, r, BLOOD + contrast * rng.uniform(0.8, 1.2))
        if rng.random() < 0.3:
            c.disc(x + r * 0.9, y, 0.012, 800.0)
    for _ in range(rng.integers(2, 8)):  # nodes
        c.disc(rng.uniform(-0.15, 0.15), rng.uniform(-0.1, 0.2), rng.uniform(0.01, 0.025), 35.0)
    if upper:
        r, y = rng.uniform(0.045, 0.06), rng.uniform(-0.02, 0.06)
        for x in (0.0,) if rng.random() < 0.5 else (-0.1, 0.1):
            c.disc(x, y, r * 1.3, 30.0)
            c.disc(x, y, r, AIR)
    c.disc(0.02, 0.16, 0.035, 40.0)
    if rng.random() < 0.5:
        c.disc(0.02, 0.155, 0.014, -900.0)
    if rng.random() < 0.3:
        _arms(c, a)


def _arms(c: Canvas, a: float) -> None:
    rng = c.rng
    for side in (-1, 1):
        x, y, r = side * (a + 0.09), rng.uniform(-0.05, 0.2), rng.uniform(0.09, 0.12)
        arm = c.blob(x, y, r, r * 1.2, wobble=0.05)
        c.paint(arm, FAT)
        c.paint(arm - 0.03 * c.px, MUSCLE + 8 * c.field(c.per_unit(20)))
        _bone(c, c.blob(x, y, 0.03, 0.035), marrow=-20)


def _bowel(c: Canvas, cavity: NDArray[Any], count: int, low: float, high: float) -> None:
    """Loops with an enhancing wall around gas, fluid, oral contrast or stool."""
    rng = c.rng
    for _ in range(count):
        x, y = rng.uniform(-0.6, 0.6), rng.uniform(low, high)
        r = rng.uniform(0.05, 0.13)
        loop = np.minimum(c.blob(x, y, r, r * rng.uniform(0.6, 1), rng.uniform(0, 3), wobble=0.25), cavity)
        c.paint(loop, rng.uniform(40, 100))
        lumen = loop - max(0.016 * c.px, 0.8)
        kind = rng.random()
        if kind < 0.25:
            fluid = (y + rng.uniform(-0.05, 0.08) - c.y) * c.px
            c.paint(lumen, rng.uniform(10, 40))
            c.paint(np.minimum(lumen, fluid), -950.0)
        elif kind < 0.45:
            stool = c.field(c.per_unit(50), 2)
            c.paint(lumen, -60 + 120 * stool - 500 * (stool > 1.1))
        elif kind < 0.6:
            c.paint(lumen, rng.uniform(150, 450))
        else:
            c.paint(lumen, rng.uniform(5, 45) + 12 * c.field(c.per_unit(40)))


def _mesentery(c: Canvas, cavity: NDArray[Any], contrast: float) -> None:
    """Fat with vessels that fan out from the root, and fine strands."""
    rng = c.rng
    inside = c.coverage(cavity)
    c.paint(cavity, FAT - 5 + 7 * c.field(c.per_unit(30), 2))
    strands = 1 - np.abs(c.field(c.per_unit(13))) / 0.05
    c.image += inside * 45 * np.clip(strands, 0, 1)
    for _ in range(rng.integers(4, 8)):
        c.tree(rng.uniform(-0.1, 0.1), 0.05, rng.uniform(-np.pi, 0), 0.14, 0.017, BLOOD + 0.7 * contrast, inside, 3)


def _abdomen(c: Canvas) -> None:
    rng = c.rng
    wall, a, b = _trunk(c, (0.64, 0.82))
    contrast = float(rng.choice([0.0, 60.0, 130.0]))
    theta = np.arctan2(c.y / b, c.x / a)
    cavity = wall - rng.uniform(0.05, 0.09) * c.px
    if rng.random() < 0.6:
        _ribs(c, np.where(c.y < -0.35, -99.0, cavity + 0.03 * c.px), theta, a)
    _mesentery(c, cavity, contrast)
    spine_y, s = b * rng.uniform(0.4, 0.5), rng.uniform(0.12, 0.15)
    for side in (-1, 1):
        psoas = c.blob(side * 1.45 * s, spine_y + 0.1, 0.5 * s, rng.uniform(0.5, 0.9) * s, wobble=0.1)
        c.paint(psoas, MUSCLE + 7 * c.field(c.per_unit(30)))
    _bowel(c, cavity, int(rng.integers(5, 12)), -b * 0.75, b * 0.15)
    if rng.random() < 0.85:
        shift = rng.uniform(-0.1, 0.15)
        liver = c.blob(-a * 0.45, -0.08 + shift, a * rng.uniform(0.25, 0.42), b * rng.uniform(0.4, 0.62), 0.2, 0.12)
        if rng.random() < 0.6:
            lobe = c.blob(-0.1, -b * 0.4 + shift, a * rng.uniform(0.2, 0.45), b * 0.25, 0.1, 0.15)
            liver = np.maximum(liver, lobe)
        liver = np.minimum(liver, cavity - 0.01 * c.px)
        parenchyma = rng.uniform(25, 65) + 0.5 * contrast
        c.paint(liver, parenchyma + 5 * c.field(c.size / 3) + 4 * c.field(8))
        inside = c.coverage(liver - 1)
        vessel = parenchyma + (rng.uniform(25, 60) if contrast else -18)
        for _ in range(rng.integers(2, 5)):
            c.tree(-0.2, rng.uniform(-0.2, 0.1), np.pi + rng.uniform(-1.2, 1.2), 0.13, 0.022, vessel, inside, 3)
        for _ in range(rng.poisson(1.2)):
            x, y, r = -a * 0.45 + rng.uniform(-0.2, 0.2), rng.uniform(-0.3, 0.2), rng.uniform(0.012, 0.07)
            c.paint(np.minimum(c.blob(x, y, r, r * 0.9, wobble=0.2), liver), parenchyma - rng.uniform(20, 60))
        if rng.random() < 0.5:
            c.paint(c.blob(-0.22, rng.uniform(-0.25, -0.05), 0.06, 0.09, wobble=0.1), 8.0)
        spleen = np.minimum(c.blob(a * 0.62, 0.05, 0.12, rng.uniform(0.15, 0.28), -0.25, 0.1), cavity - 2)
        c.paint(spleen, 45 + 0.6 * contrast + 4 * c.field(c.size / 3))
        stomach = np.minimum(c.blob(a * 0.32, -b * 0.35, 0.2, rng.uniform(0.12, 0.2), 0.5, 0.12), cavity - 2)
        c.paint(stomach, 50 + 0.4 * contrast)
        lumen = stomach - 0.02 * c.px * (1 + 0.6 * c.field(c.per_unit(14)))
        c.paint(lumen, rng.choice([20.0, 60.0, 250.0]) + 25 * c.field(c.per_unit(24)))
        c.paint(np.minimum(lumen, (-b * 0.35 + rng.uniform(-0.1, 0.05) - c.y) * c.px), -960.0)
    for side in (-1, 1):
        if rng.random() < 0.8:
            x, y = side * rng.uniform(0.34, 0.44), spine_y - rng.uniform(0.0, 0.12)
            kidney = c.blob(x, y, 0.1, rng.uniform(0.12, 0.16), side * rng.uniform(-0.5, 0.1), 0.06)
            c.paint(kidney + 0.04 * c.px, FAT)
            c.paint(kidney, 35 + 1.1 * contrast)
            medulla = kidney - (0.03 + 0.008 * c.field(c.per_unit(26))) * c.px
            c.paint(medulla, 30 + 0.6 * contrast + 12 * c.field(c.per_unit(30)))
            c.paint(c.blob(x - side * 0.03, y, 0.035, 0.055, wobble=0.25), rng.choice([-90.0, 5.0, 5.0 + 3 * contrast]))
    c.paint(c.blob(rng.uniform(0.0, 0.1), -0.02, rng.uniform(0.15, 0.28), 0.035, -0.3, 0.25),
            40 + 0.5 * contrast + 18 * c.field(c.per_unit(50)))  # fmt: skip
    for x, r, gain in ((0.04, 0.055, 1.3), (-0.08, 0.06, 1.0)):
        r, y = r * rng.uniform(0.7, 1.2), spine_y - 1.15 * s
        c.disc(x, y, r * 1.1, MUSCLE)
        c.disc(x, y, r, BLOOD + contrast * gain)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 6.28)
        c.disc(0.04 + 0.055 * np.cos(angle), spine_y - 1.15 * s + 0.055 * np.sin(angle), 0.012, 800.0)
    _spine(c, spine_y, s, wall)
    if rng.random() < 0.15:
        _arms(c, a)


def _pelvis(c: Canvas) -> None:
    rng = c.rng
    wall, a, b = _trunk(c, (0.58, 0.7))
    planes = c.level_set(c.field(c.per_unit(6), 2))
    c.paint(np.minimum(0.5 + 0.008 * c.px - np.abs(planes), wall - 2), FAT + 20)
    cavity = np.minimum(c.blob(0, -0.08, a * 0.55, b * 0.62, wobble=0.08), wall - 0.05 * c.px)
    _mesentery(c, cavity, 40.0)
    _bowel(c, cavity, int(rng.integers(3, 9)), -b * 0.6, b * 0.2)
    hips = rng.random() < 0.5
    if hips:
        bladder = c.blob(0, -0.12, rng.uniform(0.12, 0.25), rng.uniform(0.1, 0.18), wobble=0.1)
        c.paint(bladder + 0.02 * c.px, 45.0)
        c.paint(bladder, rng.uniform(0, 15))
    c.paint(c.blob(0, 0.16, 0.09, 0.07, wobble=0.2), 50.0)
    c.paint(c.blob(0, 0.16, 0.05, 0.04, wobble=0.3), rng.choice([-900.0, -50.0, 30.0]))
    for side in (-1, 1):
        x = side * a * rng.uniform(0.5, 0.56)
        if hips:
            y, r = rng.uniform(0.0, 0.06), rng.uniform(0.12, 0.15)
            _bone(c, c.blob(x - side * 0.03, y, r * 1.35, r * 1.5, wobble=0.12), cortex=0.02, marrow=180)
            c.paint(c.blob(x, y, r * 1.08, r * 1.08, wobble=0.02), 60.0)
            if rng.random() < 0.6:
                neck = c.blob(x + side * r, y + 0.04, r * 0.9, r * 0.45, side * 0.4, 0.1)
                _bone(c, neck, marrow=120)
            _bone(c, c.blob(x, y, r, r, wobble=0.02), cortex=0.015, marrow=rng.uniform(220, 380))
        else:
            wing = c.blob(x, 0.05, rng.uniform(0.3, 0.4), rng.uniform(0.035, 0.06), side * rng.uniform(0.8, 1.2), 0.15)
            _bone(c, wing, cortex=0.016, marrow=rng.uniform(120, 260))
        for y in (-b * 0.55, -b * 0.4):
            c.disc(side * 0.42 * a, y, rng.uniform(0.025, 0.04), BLOOD + rng.choice([0.0, 90.0]))
    sacrum = c.blob(0, b * 0.55, rng.uniform(0.1, 0.3), rng.uniform(0.06, 0.13), wobble=0.12)
    _bone(c, np.minimum(sacrum, wall - 1), marrow=140)
    for x in (-0.08, 0.08):
        c.disc(x, b * 0.55, 0.022, -60.0)


def _head(c: Canvas) -> None:
    rng = c.rng
    a = rng.uniform(0.58, 0.68)
    b = a * rng.uniform(1.15, 1.3)
    head = c.blob(0, 0, a, b, wobble=0.03)
    c.paint(head, 20.0)
    c.paint(head - 0.02 * c.px, FAT + 30 + 30 * c.field(c.per_unit(14)))
    scalp = rng.uniform(0.04, 0.08)
    skull = head - scalp * c.px * (1 + 0.25 * c.field(3))
    c.paint(skull, rng.uniform(1000, 1600))
    diploe = (0.035 + 0.012 * c.field(5)) * c.px
    c.paint(0.012 * c.px - np.abs(skull - diploe), 450 + 150 * c.field(c.size / 3))
    brain = skull - rng.uniform(0.06, 0.09) * c.px
    c.paint(brain, 8.0)
    folds = c.field(c.per_unit(13))
    depth = np.clip(brain / (0.25 * c.px), 0, 1)
    tissue = np.where(np.abs(folds) < 0.3 * (1 - depth), 12.0, 38.0 - 9 * np.clip((depth - 0.35) * 4, 0, 1))
    c.paint(brain - 0.01 * c.px, tissue + 1.5 * c.field(c.size / 2))
    for side in (-1, 1):
        ventricle = c.blob(side * 0.08, -0.05, 0.05, rng.uniform(0.1, 0.24), side * rng.uniform(-0.35, 0.35), 0.15)
        c.paint(ventricle, 7.0)
    c.paint(0.006 * c.px + 0.2 - np.abs(c.x) * c.px + np.minimum(brain, 0), 45.0)
    if rng.random() < 0.35:  # lower slice: air cells, orbits
        for side in (-1, 1):
            c.paint(c.blob(side * 0.25, -b * 0.72, 0.16, 0.16, wobble=0.05), -80.0)
            c.paint(c.blob(side * 0.25, -b * 0.8, 0.1, 0.1, wobble=0.02), 15.0)
            cells = np.minimum(c.level_set(c.field(c.per_unit(45)), 0.2), c.blob(side * a * 0.7, 0.15, 0.14, 0.18))
            c.paint(cells, -850.0)
        nose = np.minimum(c.level_set(c.field(c.per_unit(20)), 0.0), c.blob(0, -b * 0.75, 0.1, 0.2))
        c.paint(c.blob(0, -b * 0.75, 0.12, 0.22), 300.0)
        c.paint(nose, -950.0)
    if rng.random() < 0.3:
        x, y, r = rng.uniform(-0.3, 0.3), rng.uniform(-0.35, 0.35), rng.uniform(0.04, 0.12)
        c.paint(c.blob(x, y, r, r * 0.8, wobble=0.25), rng.choice([65.0, 20.0]))
