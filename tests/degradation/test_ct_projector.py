"""CT projection and filtered backprojection against discs known in closed form, scikit-image, and each other."""

import math

import numpy as np
import pytest
import torch
from skimage.data import shepp_logan_phantom
from skimage.transform import radon, resize

from cdm4mi.degradation.ct import ScanGeometry, fbp, project, variance_weights
from cdm4mi.degradation.ct.fan import fan_angles
from cdm4mi.errors import UserError

MU = 0.0192
BEAMS = ("parallel", "fan")


def disc(scan, radius, x=0.0, y=0.0, fine=6):
    """(1, rows, columns) attenuation of a disc of water at (x, y) mm, each pixel the mean over fine x fine points."""
    sides = zip((scan.rows, scan.columns), scan.spacing, strict=True)
    rows, columns = ((torch.arange(n * fine) - (n * fine - 1) / 2) * (d / fine) for n, d in sides)
    inside = ((columns - x) ** 2 + (rows[:, None] - y) ** 2 <= radius**2).float() * MU
    return torch.nn.functional.avg_pool2d(inside[None], fine)


def rays(scan):
    """theta and s of every ray, (views, channels), from the definition of the beam."""
    s, theta = scan.positions().expand(scan.views, -1), scan.angles()[:, None]
    return theta + (torch.asin(s / scan.source_distance) if scan.beam == "fan" else 0), s


def disc_integrals(scan, radius, x=0.0, y=0.0):
    theta, s = rays(scan)
    distance = s - x * torch.cos(theta) - y * torch.sin(theta)
    return 2 * MU * (radius**2 - distance**2).clamp(min=0).sqrt()


def relative(found, expected):
    found, expected = (np.asarray(a, dtype=np.float64) for a in (found, expected))
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize(
    ("rows", "columns", "spacing"), [(256, 256, (1.0, 1.0)), (191, 256, (1.3, 0.9))], ids=["square", "oblong pixels"]
)
def test_line_integrals_of_a_disc_off_centre(beam, rows, columns, spacing):
    scan = ScanGeometry(rows, columns, spacing, views=180, beam=beam)
    found = project(disc(scan, 60.0, 31.0, -22.0), scan)[0]
    expected = disc_integrals(scan, 60.0, 31.0, -22.0)
    assert relative(found, expected) < 0.007  # nearly all of it at the disc's edge, which has the width of a pixel
    assert abs(float(found.sum() / expected.sum()) - 1) < 0.0005


@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize("filter", ["ram-lak", "hann"])
def test_reconstruction_has_the_value_of_the_disc_and_nothing_around_it(beam, filter):
    scan = ScanGeometry(256, 256, (1.2, 1.2), views=360, beam=beam)
    image = fbp(disc_integrals(scan, 90.0, 20.0, -15.0).float()[None], scan, filter)[0] / MU
    inner, outer = disc(scan, 80.0, 20.0, -15.0)[0] > 0.99 * MU, disc(scan, 100.0, 20.0, -15.0)[0] == 0
    assert float(image[inner].mean()) == pytest.approx(1.0, abs=0.002)
    assert float(image[inner].std()) < 0.005
    assert abs(float(image[outer & (disc(scan, 150.0)[0] > 0)].mean())) < 0.002


def test_agrees_with_scikit_image():
    size, views = 257, 60  # odd, where both turn around the same point
    phantom = resize(shepp_logan_phantom(), (size, size), anti_aliasing=True).astype(np.float32)
    scan = ScanGeometry(size, size, (1.0, 1.0), views)
    # scikit-image counts its angles the other way around in pixel coordinates
    found = project(torch.from_numpy(phantom[::-1].copy())[None], scan)[0].numpy().T
    expected = radon(phantom, np.arange(views) * 180 / views, circle=False)
    first = len(found) // 2 - len(expected) // 2  # where both have s = 0
    assert relative(found[first : first + len(expected)], expected) < 0.01


def test_fan_beam_measures_the_rays_of_a_parallel_beam():
    size, views = 129, 120
    phantom = torch.from_numpy(resize(shepp_logan_phantom(), (size, size), anti_aliasing=True)).float()[None]
    fan = ScanGeometry(size, size, (2.0, 2.0), views, "fan")
    parallel = ScanGeometry(size, size, (2.0, 2.0), views * 4)  # every 3/8 degree
    dense = project(phantom, parallel)[0].double()
    full = torch.cat([dense, dense.flip(-1)])  # the opposite view sees each ray from its other end
    theta, _ = rays(fan)
    position = theta / (math.pi / parallel.views)
    low, channel = position.floor().long(), torch.arange(fan.channels)
    expected = torch.lerp(
        full[low % len(full), channel], full[(low + 1) % len(full), channel], position - position.floor()
    )
    found = project(phantom, fan)[0]
    assert relative(found, expected) < 0.01
    half = fan.parallel(views // 2)
    assert relative(fbp(found[None], fan), fbp(project(phantom, half), half)) < 0.02


def test_fan_angles_reach_the_edge_of_the_field():
    scan = ScanGeometry(512, 512, (0.8, 0.8), beam="fan", source_distance=570.0)
    assert float(570 * torch.sin(fan_angles(scan)[-1])) >= 512 * 0.8 / math.sqrt(2)


def test_a_quarter_turn_of_the_slice_is_a_quarter_turn_of_the_views():
    image = torch.rand(1, 96, 96, generator=torch.Generator().manual_seed(0))
    scan = ScanGeometry(96, 96, (1.0, 1.0), views=40)
    views = project(image, scan)[0]
    turned = project(image.rot90(-1, (1, 2)), scan)[0]  # what lay along x lies along y (down)
    torch.testing.assert_close(turned[20:], views[:20], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(turned[:20], views[20:].flip(-1), rtol=1e-4, atol=1e-3)


def test_lengths_are_in_millimetres():
    image = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
    small, large = (ScanGeometry(64, 64, (d, d), views=24) for d in (0.7, 1.4))
    torch.testing.assert_close(project(image, large), 2 * project(image, small))
    sinogram = project(image, small)
    torch.testing.assert_close(fbp(sinogram, large), fbp(sinogram, small) / 2)


@pytest.mark.parametrize("beam", BEAMS)
def test_a_slice_is_the_same_in_any_batch(beam):
    images = torch.rand(5, 64, 80, generator=torch.Generator().manual_seed(0))
    scan = ScanGeometry(64, 80, (1.0, 1.0), views=48, beam=beam)
    together = project(images, scan)
    alone = torch.cat([project(image[None], scan) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(
        fbp(together, scan), torch.cat([fbp(one[None], scan) for one in together]), rtol=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize("filter", ["ram-lak", "hann"])
def test_predicted_variance_is_that_of_white_noise(beam, filter):
    scan = ScanGeometry(192, 192, (1.0, 1.0), views=240, beam=beam)
    line = torch.randn(3, 240, scan.channels, generator=torch.Generator().manual_seed(0))
    # views that see the slice from the side are noisier, as they are in a patient
    deviation = 1 + 2 * torch.sin(scan.angles())[:, None].abs().float()
    mask = disc(scan, 70.0)[0] > 0
    predicted = float((variance_weights(mask, scan, filter) * deviation**2).sum())
    measured = float(fbp(line * deviation, scan, filter)[:, mask].var())
    assert measured == pytest.approx(predicted, rel=0.06)


def test_impossible_fans_are_refused():
    with pytest.raises(UserError, match="views: found 181, expected an even number"):
        ScanGeometry(64, 64, (1.0, 1.0), views=181, beam="fan")
    with pytest.raises(UserError, match=r"geometry fan: found a slice that reaches 7[0-9][0-9] mm"):
        ScanGeometry(512, 512, (2.0, 2.0), beam="fan")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("beam", BEAMS)
def test_gpu_gives_what_the_cpu_gives(beam):
    scan = ScanGeometry(128, 128, (1.0, 1.0), views=90, beam=beam)
    image = disc(scan, 40.0, 5.0)
    line = project(image, scan)
    torch.testing.assert_close(project(image.cuda(), scan).cpu(), line, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fbp(line.cuda(), scan).cpu(), fbp(line, scan), rtol=1e-3, atol=1e-5)
