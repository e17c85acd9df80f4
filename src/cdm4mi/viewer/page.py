"""The page as HTML: with the voxels in it, or for a server that has them."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
from jinja2 import Environment
from numpy.typing import NDArray

from cdm4mi.files import replacing_file
from cdm4mi.viewer.scene import Scene

SCRIPTS = ("data.js", "drawing.js", "controls.js")
"""In the order in which they build on each other; together they are the page's one script."""
PART = 2**21
"""Voxels in one element of the page: enough to pack well, few enough for the first picture to come soon."""
END = "</body></html>\n"


def html(scene: Scene, served: bool = False) -> str:
    """The page without voxels and without its end (``END``); ``served``: it asks the server it came from for them.

    Its policy (Content-Security-Policy) lets it run its own script and ask nothing of anybody else.
    """
    connect = "'self'" if served else "'none'"
    script = "\n".join(_text(name) for name in SCRIPTS)
    style = _text("page.css")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    # "<" is escaped so that no text can end the element that holds it.
    described = json.dumps(scene.described(), allow_nan=False).replace("<", "\\u003c")
    page = Environment(autoescape=True).from_string(_text("page.html"))
    return page.render(
        policy=policy, script=script, style=style, scene=described, voxels="served" if served else "here"
    )


def write_page(scene: Scene, path: Path) -> None:
    """Write one file that holds everything; it opens without a server and without a network."""
    with replacing_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as out:
        out.write(html(scene))
        out.writelines(_elements(scene))
        out.write(END)


def _elements(scene: Scene) -> Iterator[str]:
    """The voxels as elements with text (packed, then base64) in the order in which they are wanted.

    Each is a slab of slices of a picture; those about the middle, which the page shows first, come first.
    """
    for time in range(max(len(picture.codes) for picture in scene.pictures)):
        blocks = [(n, p.codes[time]) for n, p in enumerate(scene.pictures) if time < len(p.codes)]
        slices, *plane = blocks[0][1].shape
        thick = max(1, PART // math.prod(plane))
        for start in sorted(range(0, slices, thick), key=lambda start: abs(start + thick / 2 - slices / 2)):
            for number, codes in blocks:
                text = base64.b64encode(packed(codes[start : start + thick].reshape(-1))).decode("ascii")
                yield (
                    f'<script type="text/plain" data-block="{number}-{time}" data-start="{start * math.prod(plane)}">'
                    f"{text}</script>\n"
                )


def packed(codes: NDArray[np.uint16]) -> bytes:
    """Codes (n,) in fewer bytes: steps from one to the next, small ones first, low bytes, then high bytes, as zlib.

    A step s (modulo 65536, from -32768) is written as 2 s, or -2 s - 1 below 0. Noise fills the low bytes alone, and
    the compressor looks for runs alone: matches in noise cost time and save nothing.
    """
    steps = np.diff(codes, prepend=np.uint16(0)).view(np.int16)
    folded = ((steps << 1) ^ (steps >> 15)).astype("<u2")
    planes = folded.view(np.uint8).reshape(-1, 2).T
    compressor = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return compressor.compress(planes.tobytes()) + compressor.flush()


def _text(name: str) -> str:
    return files("cdm4mi.viewer").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """A source of the policy that allows this text alone."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
