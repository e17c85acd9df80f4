"""Which protocol a command judges by: the one that was named, or the default for the scans it meets."""

from __future__ import annotations

from cdm4mi.errors import UserError
from cdm4mi.evaluation.protocol import FixedWindow, Protocol, load_protocol
from cdm4mi.intensity import modality_of
from cdm4mi.io import Volume

KINDS = {"ct-1000": "CT", "colour-8bit": "colour images of 8 bits", "percentiles": "what is no CT"}
"""The default protocols, and of what they are."""


class Choice:
    """One protocol for all scans of a run.

    name: of a protocol or a YAML file; None leaves it to the first scan, ``ct-1000`` for CT, ``colour-8bit`` for colour
    images of 8 bits, and ``percentiles`` for others. window: physical values in place of the default's. mask: only the
    body (True) or the whole image (False).
    """

    def __init__(
        self, name: str | None = None, window: tuple[float, float] | None = None, mask: bool | None = None
    ) -> None:
        if name is not None and window is not None:
            raise UserError(field="window", found="with `protocol`", expected="one of them: a protocol fixes the range")
        if window is not None and not window[0] < window[1]:
            found = f"{window[0]:g} {window[1]:g}"
            raise UserError(field="window", found=found, expected="two numbers, the lower one first")
        self.why = "as asked"
        self._window = window
        self._mask = mask
        self._default: str | None = None
        self._protocol = None if name is None else self._masked(load_protocol(name))

    @property
    def protocol(self) -> Protocol:
        """What was chosen, once a scan has been met."""
        if self._protocol is None:
            raise UserError("no scan to compare, expected at least one")
        return self._protocol

    def for_scan(self, reference: Volume, name: str) -> Protocol:
        """The protocol for this scan, the same for all. Raises UserError where the defaults of two scans differ."""
        if self._protocol is not None and self._default is None:
            return self._protocol
        default = _default_for(reference)
        if self._protocol is None:
            self._default = default
            protocol = load_protocol(default)
            source = "" if reference.modality or reference.channel_axis is not None else ", told from the values"
            self.why = f"the default for {KINDS[default]}{source}"
            if self._window is not None:
                low, high = self._window
                update = {"name": "given-range", "modality": "any", "window": FixedWindow(low=low, high=high)}
                protocol = protocol.model_copy(update=update)
                self.why = "the range as asked"
            self._protocol = self._masked(protocol)
        elif default != self._default and self._window is None:
            raise UserError(
                f"{name}: would be judged by {default}, the scans before it by {self._default}; "
                "expected scans of one kind, or a `protocol` for all"
            )
        return self._protocol

    def _masked(self, protocol: Protocol) -> Protocol:
        if self._mask is None:
            return protocol
        return protocol.model_copy(update={"regions": ["body" if self._mask else "image"]})


def _default_for(reference: Volume) -> str:
    if reference.channel_axis is not None and reference.source is not None and reference.source.dtype == "uint8":
        return "colour-8bit"
    return "ct-1000" if modality_of(reference) == "CT" else "percentiles"
