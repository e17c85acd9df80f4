"""Scans in and out: ``read(path) -> Volume`` and ``write(volume, path)`` for every format, geometry and units kept."""

from cdm4mi.io.derivation import Derivation
from cdm4mi.io.formats import Listing, ScanInfo, list_scans, read, read_all, write
from cdm4mi.io.volume import Volume

__all__ = ["Derivation", "Listing", "ScanInfo", "Volume", "list_scans", "read", "read_all", "write"]
