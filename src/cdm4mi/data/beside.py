"""Further channels of a condition: neighbouring slices, and the same slice in other contrasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from cdm4mi.config.schema import DataConfig
from cdm4mi.data.inventory import Unit
from cdm4mi.data.names import pseudonym
from cdm4mi.errors import UserError
from cdm4mi.intensity import window_for
from cdm4mi.io import Volume
from cdm4mi.io.formats import is_positioned
from cdm4mi.io.geometry import reorient
from cdm4mi.io.listing import ScanInfo


def neighbours_of(k: int, length: int, reach: int) -> list[int]:
    """Indices k - reach .. k - 1, k + 1 .. k + reach out of ``length`` slices; at an end the last is repeated."""
    return [min(max(k + step, 0), length - 1) for step in range(-reach, reach + 1) if step]


class ContrastSlices:
    """Slices (N, rows, columns) of another contrast at the positions of a scan's, on [-1, 1] by the contrast's window.

    Values outside the window are clipped. ``slices[index]`` makes those of a list or of a slice. Raises UserError for
    colour and for another grid of voxels; ``name`` is what messages call the contrast.
    """

    def __init__(self, contrast: Volume, scan: Volume, config: DataConfig, name: str) -> None:
        contrast.refuse_colour(name)
        self.norm = window_for(contrast, config.window, config.percentiles)
        array = _on_grid(contrast, scan, name)
        self.array = array.reshape(-1, *array.shape[-2:])

    def __getitem__(self, index: list[int] | slice) -> NDArray[Any]:
        return self.norm.normalised(self.array[index]).clip(-1, 1)


def _on_grid(contrast: Volume, scan: Volume, name: str) -> NDArray[Any]:
    """The array of a contrast on the voxel grid of a scan; axes that are swapped or mirrored are turned."""
    grid = scan.shape[:-1] if scan.channel_axis is not None else scan.shape
    array, found = contrast.array, " x ".join(map(str, contrast.shape))
    if sorted(contrast.shape) != sorted(grid):
        raise UserError(f"{name}: has {found} voxels, expected the {' x '.join(map(str, grid))} of the scan")
    if is_positioned(contrast.kind) and is_positioned(scan.kind):
        try:
            array = reorient(array, contrast.affine, grid, scan.affine)
        except UserError:
            raise UserError(
                f"{name}: lies elsewhere in the patient than the scan (affines differ), expected the same voxels"
            ) from None
    elif contrast.shape != grid:
        raise UserError(f"{name}: has {found} voxels, expected the {' x '.join(map(str, grid))} of the scan")
    return array


class Contrasts:
    """The scans of other contrasts by patient, found by paths and headers and read when they are needed.

    groups: the scans of each contrast. Patients are told apart as those of the scans are: by DICOM PatientID, BIDS
    label, folder or file name; one scan of one patient belongs to the one scan there is.
    """

    def __init__(self, groups: Sequence[Sequence[tuple[Unit, ScanInfo]]], config: DataConfig) -> None:
        self.config = config
        self.by_patient: list[dict[str, list[ScanInfo]]] = []
        for scans in groups:
            found: dict[str, list[ScanInfo]] = {}
            for unit, info in scans:
                found.setdefault(pseudonym(info.patient_id) if info.patient_id else unit.person, []).append(info)
            self.by_patient.append(found)

    def of(self, patient: str, scan: Volume, alone: bool) -> list[NDArray[Any]]:
        """The slices of each contrast at those of a patient's scan. Raises UserError.

        alone: whether this is the only scan, to which the only scan of each contrast then belongs.
        """
        images = []
        for n, found in enumerate(self.by_patient):
            name = f"data.contrasts[{n}]"
            infos = found.get(patient, [])
            if alone and not infos and len(found) == 1:
                (infos,) = found.values()
            if len(infos) != 1:
                raise UserError(
                    f"{name}: found {len(infos)} scans of patient {patient}, expected one (patients are told by DICOM "
                    "PatientID, BIDS label, folder or file name)"
                )
            try:
                images.append(ContrastSlices(infos[0].load(), scan, self.config, name)[:])
            except UserError as error:
                text = str(error)
                raise UserError(f"{text} (patient {patient})" if text.startswith(name) else f"{name}: {text}") from None
        return images
