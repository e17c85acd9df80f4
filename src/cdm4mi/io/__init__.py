"""Scans in and out: ``read(path) -> Volume`` and ``write(volume, path)`` for every format, geometry and units kept."""

from cdm4mi.io.derivation import Derivation
from cdm4mi.io.describe import Description, describe
from cdm4mi.io.dicom.deidentify import Deidentification
from cdm4mi.io.listing import Listing, ScanInfo, list_files, list_scans, sort_files
from cdm4mi.io.maps import check_map_target, write_map
from cdm4mi.io.reading import read, read_all
from cdm4mi.io.record import InputRecord, OutputRecord, input_record, record_path, write_record
from cdm4mi.io.volume import Volume
from cdm4mi.io.writing import check_result, check_target, refuse_appeared, refuse_existing, write

__all__ = [
    "Deidentification",
    "Derivation",
    "Description",
    "InputRecord",
    "Listing",
    "OutputRecord",
    "ScanInfo",
    "Volume",
    "check_map_target",
    "check_result",
    "check_target",
    "describe",
    "input_record",
    "list_files",
    "list_scans",
    "read",
    "read_all",
    "record_path",
    "refuse_appeared",
    "refuse_existing",
    "sort_files",
    "write",
    "write_map",
    "write_record",
]
