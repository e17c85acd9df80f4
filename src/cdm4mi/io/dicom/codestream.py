"""Image size in the headers of JPEG, JPEG-LS and JPEG 2000 streams, checked before a decoder takes memory for it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
# Start-of-frame markers: JPEG (ITU T.81 table B.1, without DHT, JPG, DAC) and JPEG-LS (T.87)
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def coded_sizes(data: BinaryIO) -> Iterator[tuple[int, int]]:
    """(rows, columns) of every JPEG, JPEG-LS or JPEG 2000 stream that begins in an item of encapsulated pixel data.

    data: an open file where these begin.
    """
    while len(head := data.read(8)) == 8 and head[:4] == _ITEM:
        size = _size(data.read(struct.unpack("<L", head[4:])[0]))
        if size is not None:
            yield size


def _size(stream: bytes) -> tuple[int, int] | None:
    start = stream.find(b"\xff\x4f\xff\x51", 0, 512)  # JPEG 2000, also inside a JP2 box: SOC, SIZ (T.800 A.5.1)
    if start >= 0 and len(stream) >= start + 24:
        width, height, left, top = struct.unpack(">4L", stream[start + 8 : start + 24])
        return height - top, width - left
    if stream[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker, length = stream[at + 1], struct.unpack(">H", stream[at + 2 : at + 4])[0]
        if marker in _START_OF_FRAME:
            height, width = struct.unpack(">2H", stream[at + 5 : at + 9])
            return height, width
        at += 2 + length
    return None
