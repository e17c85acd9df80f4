"""The lesion test: methods whose answer is known, the command, and what is kept of it in a model's file."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cdm4mi.config.noise_spec import noise_from_spec
from cdm4mi.errors import UserError
from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.io import Volume, read
from cdm4mi.lesions import LesionTest, lesion_test
from cdm4mi.lesions.measure import measure
from cdm4mi.lesions.methods import INPUT, Method, trained, untouched
from cdm4mi.lesions.printed import tables_of
from cdm4mi.lesions.record import Cell, Score
from cdm4mi.lesions.tissue import find_tissue
from cdm4mi.models.about import LesionCurve
from cdm4mi.models.checkpoint import load_model
from cdm4mi.trust import trust_report
from cdm4mi.trust.lesions import lesions_kept
from cdm4mi.window import IntensityWindow

AFFINE = np.diag([-0.7, -0.7, 3.0, 1.0])
SIGMA = 20.0
WHITE = f"gaussian sigma_hu={SIGMA:g}"


def body(slices=1, side=160, modality="CT"):
    """A flat disc of 40 HU in air, with a little noise of its own."""
    rows, columns = np.indices((side, side))
    image = np.where(np.hypot(rows - side / 2, columns - side / 2) < 0.48 * side, 40.0, -1000.0)
    image = image + np.random.default_rng(0).normal(0, 1, (slices, side, side))
    return Volume((image if modality == "CT" else image + 1000).astype(np.float32), AFFINE, modality)


def of_stack(function):
    return Method(lambda images, sigma, scan: np.stack([function(image[len(image) // 2]) for image in images]))


@pytest.fixture(scope="module")
def cells():
    """Methods of which it is known what they keep."""
    methods = {
        "input": untouched(),
        "half": of_stack(lambda image: 40 + 0.5 * (image - 40)),
        "blur": of_stack(lambda image: gaussian_filter(image, 1.0)),
        "constant": of_stack(lambda image: np.full_like(image, 40)),
        "inventor": of_stack(_with_false_blobs),
    }
    part = find_tissue(body(2), 6, 9)
    found = measure([part], methods, noise_from_spec(WHITE, {}), "white", (5, 9), (-20, -40), repeats=8)
    return {(cell.size, cell.contrast): cell for cell in found}


def _with_false_blobs(image):
    out = np.full_like(image, 40)
    rows, columns = np.indices(image.shape)
    out[(rows % 20 < 5) & (columns % 20 < 5)] -= 60
    return out


def test_what_is_kept_is_what_the_method_keeps(cells):
    for cell in cells.values():
        assert cell.scores["input"].kept == pytest.approx(1, abs=1e-4)
        assert cell.scores["half"].kept == pytest.approx(0.5, abs=1e-4)
        assert cell.scores["constant"].kept == pytest.approx(0, abs=1e-4)
        assert cell.scores["half"].kept_interval == pytest.approx((0.5, 0.5), abs=1e-4)
    assert cells[5, -40].scores["blur"].kept < cells[9, -40].scores["blur"].kept < 1


def test_half_of_signal_and_noise_is_as_visible_and_as_well_seen_as_the_input(cells):
    scores = cells[5, -20].scores
    assert scores["half"].visibility == pytest.approx(scores["input"].visibility, rel=0.01)
    assert scores["half"].d == pytest.approx(scores["input"].d, rel=1e-3)
    assert scores["half"].auc == pytest.approx(scores["input"].auc)


def test_a_blur_raises_the_visibility_and_adds_no_information(cells):
    for cell in cells.values():
        assert cell.scores["blur"].visibility > 1.5 * cell.scores["input"].visibility
        assert cell.scores["blur"].d < 1.1 * cell.ideal_d


def test_the_bound_of_white_noise_is_that_of_the_closed_form_and_the_observer_comes_close(cells):
    from cdm4mi.lesions.shapes import Site, lesion

    for (size, contrast), cell in cells.items():
        signal = contrast * lesion((1, 48, 48), Site(0, 24, 24), size)[0]
        assert cell.ideal_d == pytest.approx(np.linalg.norm(signal) / np.hypot(SIGMA, 1), rel=0.1)
        low, high = cell.scores["input"].d_interval
        assert 0.6 * cell.ideal_d < cell.scores["input"].d and low < 1.05 * cell.ideal_d
        assert low < cell.scores["input"].d < high


def test_nothing_is_seen_in_a_constant_and_invented_blobs_are_counted(cells):
    cell = cells[5, -40]
    assert cell.scores["constant"].d == pytest.approx(0, abs=0.3) and cell.scores["constant"].invented == 0
    assert cell.scores["constant"].auc == pytest.approx(0.5, abs=0.05)
    assert cell.scores["inventor"].invented > 0
    assert cells[5, -20].scores["input"].invented > cells[9, -40].scores["input"].invented


def test_a_scan_as_it_is_gives_contrast_alone():
    found = measure([find_tissue(body(), 4, 5)], {"input": untouched()}, None, "none", (5,), (-20,))
    score = found[0].scores["input"]
    assert score.kept == pytest.approx(1, abs=1e-4) and (score.d, score.auc, score.invented) == (None, None, None)
    assert found[0].ideal_d is None and found[0].sigma == pytest.approx(1, rel=0.2)


def test_a_share_that_rounds_to_nothing_has_no_sign():
    shares = {INPUT: 1.0, "model": -0.004}
    scores = {name: Score(kept=kept, kept_interval=(kept, kept), visibility=1.0) for name, kept in shares.items()}
    cell = Cell(noise="white", sigma=20.0, size=5.0, size_mm=5.0, contrast=-20.0, ideal_d=None, scores=scores)
    table = tables_of(LesionTest.model_construct(unit="HU", cells=[cell]))[0]
    assert table.heads[2] == "kept model" and table.rows[0][2] == "0 %"


def test_a_method_that_averages_slices_keeps_a_third_of_a_disc_and_more_of_a_ball():
    average = Method(lambda images, sigma, scan: images.mean(1), beside=1)
    part = find_tissue(body(5), 3, 13, beside=1)
    kept = [
        measure([part], {"average": average}, None, "none", (13,), (-20,), sphere=sphere)[0].scores["average"].kept
        for sphere in (False, True)
    ]
    assert kept[0] == pytest.approx(1 / 3, abs=0.001) and 0.5 < kept[1] < 0.95


def test_a_method_that_is_given_whole_slices_is_judged_where_the_others_are():
    shown = []

    def darker(images, sigma, scan):
        shown.append(images.shape)
        return 0.7 * images[:, 0]

    part = find_tissue(body(1, 200), 2, 5)
    methods = {"parts": Method(darker), "whole": Method(darker, whole=True)}
    scores = measure([part], methods, noise_from_spec(WHITE, {}), "white", (5,), (-20,), repeats=4)[0].scores
    assert scores["parts"] == scores["whole"] and shown[1] == (2, 1, 200, 200) and shown[0] != shown[1]


def test_a_sampling_model_draws_the_same_for_every_image(tiny):
    images = np.repeat(body(1, 64).array[None] + 0.0, 2, axis=0)
    sampling = changed(tiny.config.sampling, estimate="sample", steps=2)
    out = trained(tiny, sampling).restore(images, 60.0, body(1, 64))
    assert np.array_equal(out[0], out[1])


def test_magnitudes_are_stated_in_percent_of_the_window(tiny):
    scans = [body(side=112, modality="MR"), body(side=104, modality="MR")]
    test = lesion_test(scans, tiny, sizes=[4], in_mm=True, noises=["rician percent=3"], sites=4, repeats=2)
    assert (test.modality, test.unit, test.in_percent, test.sites) == ("MR", "% of the window", True, 7)
    assert [cell.contrast for cell in test.cells] == [-3, -6, -10]
    assert test.cells[0].size == pytest.approx(4 / 0.7) and test.cells[0].sigma == pytest.approx(3, rel=0.2)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    import nibabel as nib

    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    nib.save(nib.Nifti1Image(body(1, 112).array.T, AFFINE), path)
    return path


SHORT = ("--sizes", "5,9", "--contrasts", "-30", "--noise", WHITE, "--sites", "4", "--repeats", "2")


def test_the_command_writes_record_and_picture_and_keeps_the_curve(command, scan, trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    code, out, err = command("lesion-test", scan, "--model", run, *SHORT, "--out", tmp_path / "out", "--keep")
    assert (code, err) == (0, "")
    assert "d' (95 % interval)" in out and "not for clinical use" in out.lower()
    text = (tmp_path / "out" / "lesion-test.json").read_text()
    test = LesionTest.model_validate_json(text)
    assert test.written and str(tmp_path) not in text
    model = load_model(run)
    assert test.weight_hash == model.weight_hash and test.methods[:2] == ["input", "NLM"] and len(test.cells) == 2
    assert (tmp_path / "out" / "lesion-test.png").read_bytes()[:4] == b"\x89PNG"
    assert model.about.lesions == test.curve() and len(model.about.lesions.points) == 2
    code, out, _ = command("inspect", run / "checkpoints" / "best.ckpt")
    assert code == 0 and "contrast kept of discs in HU" in out and "5 px -30:" in out
    again = lesion_test([scan], run, sizes=[5, 9], contrasts=[-30], noises=[WHITE], sites=4, repeats=2)
    assert again == test.model_copy(update={"written": None})  # seeded, by command or by call


@pytest.mark.parametrize("name", ["lesion-test.json", "lesion-test.png"])
def test_results_that_exist_stay_without_force(name, command, scan, tmp_path):
    (tmp_path / name).write_text("mine")
    code, _, err = command("lesion-test", scan, "--out", tmp_path)
    expected = "expected a new name for the output (--force replaces the file)"
    assert (code, err) == (2, f"error: {tmp_path / name}: exists, {expected}\n")
    assert (tmp_path / name).read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--sizes", "5,wide"], "--sizes: found '5,wide', expected numbers"),
        (["--sizes", "5mm,7"], "all or none of them in mm"),
        (["--sizes", "90"], "--sizes: found 90 pixels, expected 1 to 24 pixels"),
        (["--contrasts", "0"], "contrasts: found 0"),
        (["--noise", "rician percent=5"], "expected MR"),
        (["--noise", "fog"], "found 'fog'"),
        (["--dose", "0.2", "--noise", "pet"], "--dose: found with --noise"),
        (["--keep"], "--keep: found without --model"),
        (["--keep", "--model", "shipped", "--strength", 0.5], "--keep: found with --strength"),
        (["--sites", "2", "--repeats", "2"], "--repeats"),
    ],
)
def test_a_wrong_line_is_one_line(command, scan, tmp_path, arguments, message):
    code, out, err = command("lesion-test", scan, "--out", tmp_path / "out", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err
    assert not (tmp_path / "out").exists()


def test_a_scan_without_flat_tissue_is_refused(tiny):
    array = np.random.default_rng(0).normal(600, 100, (2, 96, 96))
    with pytest.raises(UserError, match="no square of 27 pixels of soft tissue"):
        lesion_test([Volume(array, AFFINE, "CT")], tiny)


def test_a_scan_of_the_training_is_refused_by_its_name_and_by_its_pixels(tiny):
    path = tiny.config.data.paths[0]
    for scan in (path, read(path)):
        with pytest.raises(UserError, match="was trained on"):
            lesion_test([scan], tiny)


def curve(in_percent=False):
    points = [
        {"noise": "n", "sigma": s, "size": d, "size_mm": d / 2, "contrast": c, "kept": k}
        for s, d, c, k in (
            (20, 5, -20, 0.2),
            (20, 5, -40, 0.31),
            (20, 5, -60, 0.5),
            (20, 10, -60, 0.9),
            (60, 5, -40, 0),
        )
    ]
    unit = "% of the window" if in_percent else "HU"
    return LesionCurve(modality="CT", unit=unit, in_percent=in_percent, shape="disc", sites=12, points=points)


def test_a_trust_report_names_the_nearest_noise_level_that_was_tested():
    window = IntensityWindow(-1000, 1000, "CT")
    text = lesions_kept(curve(), 24.0, window)
    assert "noise level of 20 HU (24 here)" in text
    assert "31% of a disc of 5 pixels and -40 HU" in text and "90% of a disc of 10 pixels and -60 HU" in text
    assert "noise level of 60 HU" in lesions_kept(curve(), 50.0, window)
    assert "20 % of the window (24 here)" in lesions_kept(curve(in_percent=True), 480.0, window)
    assert "full strength" not in text and "restored at 0.5, keeps more" in lesions_kept(curve(), 24.0, window, 0.5)
    assert lesions_kept(None, 24.0, window) is None and lesions_kept(curve(), 0.0, window) is None
    assert lesions_kept(curve(), 24.0, IntensityWindow(0, 100, "MR")) is None


def test_the_trust_report_of_a_model_with_a_curve_says_it(tiny):
    scan = body(1, 112)
    noisy = scan.with_array(scan.array + np.random.default_rng(1).normal(0, 25, scan.shape))
    tested = replace(tiny, about=tiny.about.model_copy(update={"lesions": curve()}))
    assert "31% of a disc" in trust_report(noisy, scan, model=tested).lesions
    assert trust_report(noisy, scan, model=tiny).lesions is None


def test_draws_of_noise_are_no_volume(monkeypatch):
    """Draws of one slice stand beside each other as slices, which have nothing to do with each other."""
    records = []

    class Spy(Restorer):
        def restore(self, *given, **keys):
            restoration = super().restore(*given, **keys)
            records.append(restoration.record)
            return restoration

    monkeypatch.setattr("cdm4mi.lesions.methods.Restorer", Spy)
    images = np.random.default_rng(0).normal(0, 60, (16, 1, 48, 48)).astype(np.float32)
    scan = Volume(images[:, 0], np.diag([0.9, 0.9, 0.9, 1]), "CT")
    trained(load_model(None)).restore(images, 60.0, scan)
    assert [record.settings["planes"] for record in records] == [1]
    assert Restorer(load_model(None)).restore(scan).record.settings["planes"] == 3
