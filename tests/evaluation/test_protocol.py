"""Protocols: every shipped one is what it says and stays it; a user's file is checked like a configuration."""

import pytest

from cdm4mi.degradation import GaussianNoise
from cdm4mi.errors import UserError
from cdm4mi.evaluation.protocol import FixedWindow, Protocol, TrainingWindow, load_protocol, protocol_names

MINE = """
name: mine
version: 2
about: soft tissue of the liver
window: {type: fixed, low: -100, high: 200}
metrics: [psnr, ssim_gaussian]
"""

FROZEN = {
    "cdm4mi-mr-gaussian": (1, "b17293c9"),
    "colour-8bit": (1, "c6d5e143"),
    "corediff": (1, "68c6de6d"),
    "ct-1000": (1, "c57f5759"),
    "ldct-abdomen": (1, "450ebbe3"),
    "ldct-chest": (1, "0a7657fb"),
    "ldct-neuro": (1, "73d2931b"),
    "mr-rician": (1, "631b982f"),
    "original": (1, "4dffcd91"),
    "percentiles": (1, "39ef6e17"),
}


def mine(tmp_path, *changes):
    text = MINE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_a_shipped_protocol_changes_only_with_its_version():
    """Whoever changes what a figure means must raise ``version`` in the YAML file, and then change this table."""
    shipped = [load_protocol(name) for name in protocol_names()]
    assert {p.name: (p.version, p.digest) for p in shipped} == FROZEN


def test_the_windows_are_those_of_the_field():
    windows = {n: load_protocol(n).window for n in ("ct-1000", "ldct-chest", "ldct-abdomen", "ldct-neuro")}
    assert all(isinstance(window, FixedWindow) for window in windows.values())
    centre_width = {n: ((w.low + w.high) / 2, w.high - w.low) for n, w in windows.items()}
    assert centre_width == {
        "ct-1000": (0, 2000),
        "ldct-chest": (-600, 1500),
        "ldct-abdomen": (50, 400),
        "ldct-neuro": (40, 80),
    }
    mr = load_protocol("cdm4mi-mr-gaussian")
    assert isinstance(mr.window, TrainingWindow)
    assert mr.scale == [-1, 1]
    assert all(isinstance(noise, GaussianNoise) for noise in mr.noise)
    assert [noise.variance for noise in mr.noise] == [0.01, 0.05, 0.1, 0.2]
    for foreign in ("original", "corediff"):
        assert load_protocol(foreign).faults


def test_a_users_file_is_a_protocol_and_is_told_from_another_of_its_name(tmp_path):
    protocol = load_protocol(mine(tmp_path))
    assert protocol.label.startswith("mine v2 (")
    assert protocol.described() == "-100 to 200"
    other = load_protocol(mine(tmp_path, ("200", "201")))
    assert (other.name, other.version) == (protocol.name, protocol.version)
    assert other.digest != protocol.digest
    retold = load_protocol(mine(tmp_path, ("soft tissue of the liver", "the liver")))
    assert retold.digest == protocol.digest  # words decide no figure
    fewer = load_protocol(mine(tmp_path, ("[psnr, ssim_gaussian]", "[psnr]")))
    assert fewer.digest == protocol.digest  # nor does leaving one out change another
    assert Protocol.model_validate(protocol.model_dump()) == protocol


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 2", "version: two", r"mine.yaml: version: found 'two', expected a whole number"),
        ("version: 2", "version: 0", "version: found 0, expected at least 1"),
        ("version: 2\n", "", "version: missing"),
        ("about:", "metric: [psnr]\nabout:", "unknown key 'metric'; the nearest known key is 'metrics'"),
        ("low: -100", "lo: -100", r"unknown key 'window.lo'.*'low'"),
        ("low: -100", "low: 300", "window.high: found 200, expected more than low"),
        ("type: fixed", "type: fix", "window.type: found 'fix', expected 'fixed', 'percentiles', 'training'"),
        ("ssim_gaussian", "ssim", r"metrics\[1\]: found 'ssim', expected 'psnr'"),
        ("[psnr, ssim_gaussian]", "[]", "metrics: found \\[\\], expected a list of at least 1"),
        ("about:", "scale: [1, -1]\nabout:", "scale: found .*, expected the lower number first"),
        ("about:", "noise: [{type: gaussian, varianc: 1}]\nabout:", "unknown key 'noise.*varianc'"),
        ("name: mine", "name: ct-1000", "'ct-1000', which ships with the package, expected another"),
        ("name: mine", "name: My protocol", "name: "),
    ],
)
def test_a_mistake_is_one_line(tmp_path, old, new, message):
    with pytest.raises(UserError, match=message) as caught:
        load_protocol(mine(tmp_path, (old, new)))
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_known(tmp_path):
    with pytest.raises(UserError, match=r"ct-500: no such protocol, .*ct-1000, ldct-abdomen"):
        load_protocol("ct-500")
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    with pytest.raises(UserError, match="empty"):
        load_protocol(empty)
