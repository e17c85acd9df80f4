"""The page in a browser: where left is, which grey a value has, and what slider, keys, wheel and pointer change."""

import base64
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import needs_chromium
from corner_phantom import SPACING, as_dicom, as_nifti, corner_phantom, lps_volume
from dicom_series import PATIENT

from cdm4mi.io import Volume, read, write
from cdm4mi.viewer import Mark, Summary, make_scene, serving, write_page

pytestmark = needs_chromium

GREYS = """(() => {
  const canvas = document.querySelectorAll("#stage canvas")[%d];
  const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let text = "";
  for (let n = 0; n < data.length; n += 4) text += String.fromCharCode(data[n]);
  return { width, height, values: btoa(text) };
})()"""
COMPLETE = "document.body.dataset.complete"


def drawn(page, panel=0):
    """The red channel (rows, columns) of a panel, cut to the picture in it (what is not black)."""
    # It is drawn with the next frame, and keys arrive before that.
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
    found = page.run(GREYS % panel)
    image = np.frombuffer(base64.b64decode(found["values"]), np.uint8).reshape(found["height"], found["width"])
    rows, columns = np.nonzero(image.any(1))[0], np.nonzero(image.any(0))[0]
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if rows.size else image[:0, :0]


def corners(image):
    """Grey, to 1, at the top left, top right, bottom left and bottom right."""
    height, width = image.shape
    at = [(r, c) for r in (0.04, 0.96) for c in (0.04, 0.96)]
    return pytest.approx([int(image[int(r * height), int(c * width)]) for r, c in at], abs=1)


def top_right(page, panel=0):
    """Grey, to 1, at the top right of a panel's picture."""
    height, width = (image := drawn(page, panel)).shape
    return pytest.approx(int(image[int(0.04 * height), int(0.96 * width)]), abs=1)


def letters(page, panel=0):
    """At the left, right, top and bottom of a panel."""
    return page.run(
        f'[...document.querySelectorAll(".panel")[{panel}].querySelectorAll(".letter")].map((e) => e.textContent)'
    )


def grey(value, low=-160.0, high=240.0):
    return round(255 * (value - low) / (high - low))


def open_page(browser, tmp_path, *volumes, uncertainty=None, modality=None, **size):
    scene = make_scene(volumes[0], volumes[1:], uncertainty, modality=modality)
    write_page(scene, tmp_path / "page.html")
    page = browser.page(**size)
    page.open((tmp_path / "page.html").as_uri(), COMPLETE)
    return page


@pytest.mark.parametrize("kind", ["RAS", "PSL", "dicom"])
def test_left_is_right_on_the_screen_and_spacing_gives_the_aspect(browser, tmp_path, kind):
    path = as_dicom(tmp_path / "series") if kind == "dicom" else as_nifti(tmp_path / "scan.nii.gz", kind)
    page = open_page(browser, tmp_path, read(path), modality="CT")
    page.key("v")  # from three planes to one
    assert page.run("state.mode") == "side"
    body, left, right = grey(40), grey(200), grey(100)
    size = np.array([24, 20, 6]) * SPACING
    page.key("a")
    page.key("End")
    axial = drawn(page)
    assert letters(page) == ["R", "L", "A", "P"]
    assert corners(axial) == [body, body, right, left]
    assert axial.shape[1] / axial.shape[0] == pytest.approx(size[0] / size[1], rel=0.02)
    page.key("Home")
    assert corners(drawn(page)) == [body] * 4
    page.key("c")
    page.key("End")
    coronal = drawn(page)
    assert letters(page) == ["R", "L", "S", "I"]
    assert corners(coronal) == [right, left, body, body]
    assert coronal.shape[1] / coronal.shape[0] == pytest.approx(size[0] / size[2], rel=0.02)
    page.key("s")
    page.key("End")
    sagittal = drawn(page)
    assert letters(page) == ["A", "P", "S", "I"]
    assert corners(sagittal) == [body, left, body, body]
    assert sagittal.shape[1] / sagittal.shape[0] == pytest.approx(size[1] / size[2], rel=0.02)


@pytest.fixture(scope="module")
def compared(browser, tmp_path_factory):
    """A page of a CT, a restored one that is 50 HU higher, and an uncertainty, each slice with a value of its own."""
    array = corner_phantom()
    array[:, 0, 0] = [11, 22, 33, 44, 55, 66]
    array[:, 10, 12] = 140
    volumes = [lps_volume(array), lps_volume(array + 50)]
    sd = lps_volume(np.full_like(array, 12.5))
    return open_page(browser, tmp_path_factory.mktemp("page"), *volumes, uncertainty=sd)


@pytest.fixture
def page(compared):
    """The page of ``compared`` as it is when it opens."""
    compared.open(compared.run("location.href"), COMPLETE)
    return compared


def titles(page):
    return page.run('[...document.querySelectorAll(".panel figcaption")].map((e) => e.textContent)')


def test_four_pictures_side_by_side_with_their_values(page):
    assert titles(page) == ["input", "restored", "difference", "uncertainty"]
    assert grey(40) == top_right(page, 0) and grey(90) == top_right(page, 1)
    text = page.run('document.getElementById("values").textContent')
    assert text.startswith("input: 140 · restored: 190 · difference: 50 · uncertainty: 12.5 HU")
    box = page.run(
        "(() => { const b = panels[0].box.getBoundingClientRect(); return [b.x, b.y, b.width, b.height] })()"
    )
    scale = min(box[2] / 12, box[3] / 20)  # 24 x 20 voxels are 12 x 20 mm
    corner = (box[0] + box[2] / 2 - 6 * scale + 0.2 * scale, box[1] + box[3] / 2 - 10 * scale + 0.4 * scale)
    page.mouse("mouseMoved", *corner)
    text = page.run('document.getElementById("values").textContent')
    assert text == "input: 44 · restored: 94 · difference: 50 · uncertainty: 12.5 HU · L 10.0  P 20.0  S 39.0 mm"
    assert "NOT FOR CLINICAL USE" in page.run('document.getElementById("notice").textContent')


def test_keys_wheel_and_range_choose_the_slice(page):
    def shown():
        assert abs(int(drawn(page)[5, 1]) - grey(11 * (page.run("state.at[2]") + 1))) <= 1
        return page.run("state.at[2]")

    assert shown() == 3
    page.key("ArrowUp")
    assert shown() == 4
    page.key("ArrowDown")
    page.key("ArrowDown")
    assert shown() == 2
    page.key("PageUp")
    assert shown() == 5
    page.key("PageDown")
    assert shown() == 0
    page.send("Input.dispatchMouseEvent", type="mouseWheel", x=100, y=400, deltaX=0, deltaY=-120)
    assert shown() == 1
    page.run('document.getElementById("slice").focus()')
    page.key("ArrowUp")
    assert shown() == 2
    assert page.run('document.getElementById("slice").getAttribute("aria-valuetext")') == "axial slice 3 of 6"
    assert "axial, slice 3 of 6" in page.run('document.querySelector("canvas").getAttribute("aria-label")')


def test_presets_numbers_and_dragging_set_the_window(page):
    for key, low, high in ((2, -1350, 150), (3, -500, 1300), (4, 0, 80), (1, -160, 240)):
        page.key(str(key))
        assert grey(40, low, high) == top_right(page)
        pressed = page.run('document.querySelector("#presets [aria-pressed=true]").textContent')
        assert pressed == ["Soft tissue", "Lung", "Bone", "Brain"][key - 1]
    page.run(
        '(() => { const e = document.getElementById("width"); e.value = 800; e.dispatchEvent(new Event("change")) })()'
    )
    assert grey(40, -360, 440) == top_right(page)
    page.drag((100, 400), (180, 400))  # wider
    wide = page.run("state.window.high - state.window.low")
    assert wide == pytest.approx(800 * np.exp(80 / 200), rel=0.01)
    page.drag((100, 400), (100, 360))  # a lower level is brighter
    assert page.run("state.window.high + state.window.low") / 2 == pytest.approx(40 - wide / 10, abs=1)


def test_space_puts_the_restored_picture_in_place_of_the_input(page):
    page.key(" ")
    assert grey(90) == top_right(page) and titles(page)[0] == "restored"
    page.key(" ")
    assert grey(40) == top_right(page) and titles(page)[0] == "input"


def test_the_slider_parts_input_and_restored(page):
    page.key("v")
    assert page.run("state.mode") == "slider"

    def share():
        """How much of the first row is the input's, by its grey away from the corner with another value."""
        row = drawn(page)[2]
        return float(np.mean(np.abs(row.astype(int) - grey(40)) < 3))

    assert share() == pytest.approx(0.5, abs=0.1)
    page.run(
        '(() => { const e = document.getElementById("divider"); e.value = 90; e.dispatchEvent(new Event("input")) })()'
    )
    assert share() == pytest.approx(0.87, abs=0.08)
    split = page.run(
        "(() => { const p = panels[0], b = p.box.getBoundingClientRect(), g = p.geometry();"
        " return [b.left + g.left + state.divider * g.width * g.scale, b.top + b.height / 2] })()"
    )
    page.drag(split, (split[0] - 100, split[1]))
    assert page.run("state.divider") < 0.75
    assert page.run("state.window.low") == -160


def test_zoom_is_one_for_all_and_whole_undoes_it(page):
    def voxel_width(panel, value):
        """Pixels across the one voxel with another value in the middle of the slice."""
        image = drawn(page, panel)
        return int((np.abs(image.astype(int) - grey(value)) <= 1).sum(axis=1).max())

    before = voxel_width(0, 140), voxel_width(1, 190)
    for _ in range(4):
        page.key("+")
    after = voxel_width(0, 140), voxel_width(1, 190)
    assert after[0] / before[0] == pytest.approx(1.25**4, abs=0.2) and after[0] == pytest.approx(after[1], abs=1)
    page.key("0")
    assert (voxel_width(0, 140), voxel_width(1, 190)) == before


def test_a_click_moves_the_three_planes_to_one_point(page):
    page.run("set('mode', 'planes')")
    drawn(page)
    assert page.run("panels.map((panel) => panel.plane)") == ["axial", "coronal", "sagittal"]
    spot = page.run(
        "(() => { const p = panels[1], b = p.canvas.getBoundingClientRect(), g = p.geometry();"
        " return [b.left + g.left + 20.5 * 0.5 * g.scale, b.top + g.top + 0.5 * 3 * g.scale] })()"
    )
    page.mouse("mousePressed", *spot, button="left", buttons=1, clickCount=1)
    page.mouse("mouseReleased", *spot, button="left", clickCount=1)
    drawn(page)
    assert page.run("state.at") == [20, 10, 5]
    assert page.run("state.plane") == "coronal"


def test_the_page_asks_for_nothing_and_complains_of_nothing(browser, page):
    fresh = browser.page()
    fresh.open(page.run("location.href"), COMPLETE)
    for key in ("v", "c", "v", "ArrowUp", " ", "+", "2", "?"):
        fresh.key(key)
    assert fresh.complaints() == []
    assert [urlsplit(address).scheme for address in fresh.requests()] in (["file"], ["file", "data"])
    assert fresh.run("fetch('https://example.org/').then(() => 'came', () => 'blocked')") == "blocked"


def test_a_phone_scrolls_slices_with_a_finger(browser, tmp_path):
    page = open_page(browser, tmp_path, lps_volume(corner_phantom()), width=390, height=844, mobile=True)
    page.run("set('mode', 'side')")
    drawn(page)
    before = page.run("state.at[2]")
    for kind, y in (("touchStart", 400), ("touchMove", 394), ("touchMove", 386), ("touchEnd", None)):
        page.send("Input.dispatchTouchEvent", type=kind, touchPoints=[] if y is None else [{"x": 200, "y": y}])
    drawn(page)
    assert page.run("state.at[2]") == before + 2
    assert page.run("document.documentElement.scrollWidth") == 390


def test_two_fingers_zoom_about_the_point_between_them(browser, tmp_path):
    page = open_page(browser, tmp_path, lps_volume(corner_phantom()), width=390, height=844, mobile=True)
    page.run("set('mode', 'side')")
    drawn(page)
    at = page.run("panels[0].voxel(150, 400)")
    for kind, apart in (("touchStart", 40), ("touchMove", 60), ("touchMove", 80), ("touchEnd", None)):
        points = [] if apart is None else [{"x": 150 + side * apart, "y": 400, "id": side} for side in (-1, 1)]
        page.send("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    drawn(page)
    assert page.run("state.zoom") == pytest.approx(2, abs=0.1)
    assert np.abs(np.subtract(page.run("panels[0].voxel(150, 400)"), at)).max() <= 1


def test_time_points_of_mr_and_percentiles(browser, tmp_path):
    rng = np.random.default_rng(0)
    array = np.stack([rng.uniform(0, 100, (4, 16, 16)), np.full((4, 16, 16), 77.0)]).astype(np.float32)
    page = open_page(browser, tmp_path, Volume(array, np.diag([1.0, 1.0, 1.0, 1.0]), "MR"))
    assert page.run("state.time") == 0
    page.key("ArrowRight")
    page.wait('document.body.dataset.complete === "1"')
    drawn(page)
    assert "input: 77" in page.run('document.getElementById("values").textContent')
    assert page.run("scene.presets.map((p) => p.name)") == ["0–99.5 %", "1–99 %", "5–95 %", "All"]
    assert page.run("document.getElementById('time-at').textContent") == "time 2 / 2"


def test_the_difference_is_of_the_restored_scan_that_is_chosen(browser, tmp_path):
    array = corner_phantom()
    page = open_page(browser, tmp_path, *(lps_volume(array + shift) for shift in (0, 50, -20)), width=390, height=844)
    assert titles(page) == ["input", "restored 1", "restored 2", "difference 1"]
    page.run(
        '(() => { const e = document.getElementById("restored"); e.value = 1; e.dispatchEvent(new Event("change")) })()'
    )
    drawn(page, 3)
    assert "difference 2: −20" in page.run('document.getElementById("values").textContent')
    assert titles(page)[3] == "difference 2"
    page.run('document.getElementById("more").click()')
    assert page.run('document.getElementById("level").checkVisibility()')
    page.run('document.getElementById("more").click()')
    assert not page.run('document.getElementById("level").checkVisibility()')


def test_a_plain_picture_has_one_plane_as_it_is_stored_and_no_letters(browser, tmp_path):
    picture = np.ones((1, 40, 60), np.float32)
    picture[0, :10, :10] = 255
    write(Volume(picture, np.eye(4)), tmp_path / "picture.png")
    page = open_page(browser, tmp_path, read(tmp_path / "picture.png"))
    page.key("c")
    image = drawn(page)
    assert image[2, 2] == 255 and image[2, -3] < 5
    assert image.shape[1] / image.shape[0] == pytest.approx(1.5, rel=0.01)
    assert letters(page) == [""] * 4
    assert page.run("state.plane") == "axial"


def test_the_server_gives_the_same_page_to_this_machine(browser, tmp_path):
    from threading import Thread

    scene = make_scene(lps_volume(corner_phantom()), [lps_volume(corner_phantom() + 50)])
    with serving(scene) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        page = browser.page()
        page.open(server.address, COMPLETE)
        assert grey(90) == top_right(page, 1)
        assert {urlsplit(address).netloc for address in page.requests()} <= {f"127.0.0.1:{server.server_port}", ""}
        server.shutdown()
        thread.join()


def test_no_patient_in_the_page(tmp_path):
    scene = make_scene(read(as_dicom(tmp_path / "series")))
    write_page(scene, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not any(secret in text for secret in (*PATIENT.split("^"), "SECRET", "19500607", str(tmp_path)))


def test_a_click_on_a_mark_shows_its_voxel_in_the_middle(browser, tmp_path):
    scan = read(as_nifti(tmp_path / "scan.nii.gz", "PSL"))
    k, row, column = 1, 3, 5
    array = scan.array.copy()
    array[k, row, column] = 1234
    summary = Summary("Bad", "bad", [("bad", "a <b> of it")], [Mark("there", (k, row, column))])
    write_page(make_scene(scan.with_array(array), modality="CT", summary=summary), tmp_path / "page.html")
    page = browser.page()
    page.open((tmp_path / "page.html").as_uri(), COMPLETE)
    assert page.run('document.querySelector("#lines li").textContent') == "a <b> of it"
    page.run('document.querySelector("#marks button").click()')
    assert page.run("input.at(0, state.at)") == 1234
    assert page.run("state.centre") == page.run("state.at")
