"""A job written once and run for every combination of some values; scripts see them as `KEEPFLOW_MATRIX_<NAME>`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

Combination = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Every value of each axis with every value of the others, without `exclude`, and `include` besides."""

    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    include: tuple[Combination, ...] = ()
    exclude: tuple[Combination, ...] = ()

    @property
    def most(self) -> int:
        """The number of combinations before any is excluded."""
        return math.prod(map(len, self.axes.values())) * bool(self.axes) + len(self.include)


def combinations(matrix: Matrix) -> tuple[Combination, ...]:
    """Return the combinations in the order of the values, each once; what is included comes last."""
    product = itertools.product(*matrix.axes.values()) if matrix.axes else ()
    every = [dict(zip(matrix.axes, values, strict=True)) for values in product]
    kept = [one for one in every if not any(fits(one, excluded) for excluded in matrix.exclude)]
    kept += [dict(one) for one in matrix.include]
    return tuple(one for number, one in enumerate(kept) if one not in kept[:number])


def fits(combination: Combination, wanted: Combination) -> bool:
    """Say whether a combination has all these values."""
    return wanted.items() <= combination.items()
