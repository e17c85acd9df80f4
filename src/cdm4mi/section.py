"""What the sections of the configuration are made of: their base class and the types of their numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
AtLeastOne = Annotated[float, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]


def _rising(pair: list[float]) -> list[float]:
    if pair[0] > pair[1]:
        raise ValueError(f"found {pair}, expected the least first")
    return pair


_Two = Field(min_length=2, max_length=2)
_Rising = AfterValidator(_rising)
# A number, or the pair [least, most] that a number is drawn from.
NonNegativeRange = NonNegative | Annotated[list[NonNegative], _Two, _Rising]
PositiveRange = Positive | Annotated[list[Positive], _Two, _Rising]
ShareRange = Share | Annotated[list[Share], _Two, _Rising]
FractionRange = Fraction | Annotated[list[Fraction], _Two, _Rising]
AtLeastOneRange = AtLeastOne | Annotated[list[AtLeastOne], _Two, _Rising]


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values are checked again on assignment."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)
