"""Optimizers, powers and ways of tuning of ``simulate``, from its options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import cast

import numpy as np

from rightbatch._checks import one_of
from rightbatch.cli.options import parse_numbers, parse_positive
from rightbatch.errors import InputError
from rightbatch.quadratic import OPTIMIZERS, OptimizerName
from rightbatch.quadratic.grids import NO_SETTING, Grid
from rightbatch.quadratic.recursions.powers import Backend, compiled
from rightbatch.quadratic.schedules.shapes import EqualPieces, Shape, schedule_named
from rightbatch.quadratic.spectrum import FloatArray
from rightbatch.quadratic.table import SEARCHES, SearchName, Tuning

BACKENDS = ("auto", "numpy", "numba")
_MEMORIES = {
    "momentum": "momentum and nesterov have",
    "ema_decay": "ema has, alone or as momentum+ema",
}
# Seconds a cell of 84 nodes takes numpy, about; loading numba's kernels takes as long
# as LOADING_SECONDS, and compiling them, the first time, far longer.
_NUMPY_SECONDS: Mapping[OptimizerName, float] = {
    "sgd": 0.003,
    "momentum": 0.25,
    "nesterov": 0.25,
    "ema": 0.025,
    "momentum+ema": 0.5,
    "nesterov+ema": 0.6,
    "average": 0.04,
    "tail-average": 0.04,
}
_USUAL_NODES = 84
LOADING_SECONDS = 0.6
MOST_PIECES = 1000
TAIL_FRACTION = 0.5


def read_optimizers(text: str) -> tuple[OptimizerName, ...]:
    """Return the optimizers of a list, or all of them.

    Args:
        text: ``sgd,momentum+ema`` or ``all``.

    Returns:
        Their names, each once.

    Raises:
        InputError: A name is unknown (near ones are offered) or stands twice.
    """
    if text.strip() == "all":
        return OPTIMIZERS
    names = [name.strip().replace("_", "-") for name in text.split(",")]
    for name in names:
        one_of("--optimizer", "optimizer", name, OPTIMIZERS)
        if names.count(name) > 1:
            raise InputError(f"--optimizer: {name} stands twice in {text!r}.")
    return tuple(cast("OptimizerName", name) for name in names)


def read_powers(text: str) -> tuple[float, ...]:
    """Return preconditioner powers, each between 0 and 1.

    Args:
        text: A list.

    Returns:
        The powers.

    Raises:
        InputError: One is outside.
    """
    powers = parse_numbers("--power", text)
    for power in powers:
        if not 0 <= power <= 1:
            raise InputError(
                f"--power: must be between 0 and 1, got {power:g}.",
                "0 is no preconditioner, 1 Newton's",
            )
    return powers


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The options that say how settings are chosen, as they were written.

    Args:
        search: ``continuous`` or ``grid``.
        schedule: Of the learning rate.
        grow: Whether to grow the batch too.
        lr: Given learning rates, None for a search.
        momentum: Given values, beside `lr`.
        ema_decay: Given values, beside `lr`.
        tail_fraction: What a tail average takes, a half where None.
        max_steps: More are unreachable.
        settling: Whether to follow the loss past the target.
        backend: ``auto``, ``numpy`` or ``numba``.
    """

    search: str = "continuous"
    schedule: str = "constant"
    grow: bool = False
    lr: str | None = None
    momentum: str | None = None
    ema_decay: str | None = None
    tail_fraction: float | None = None
    max_steps: int | None = None
    settling: bool = False
    backend: str = "auto"

    def tuning(self, names: Sequence[OptimizerName]) -> Tuning:
        """Return how settings are chosen.

        Args:
            names: The optimizers.

        Returns:
            The tuning, which suits every optimizer.

        Raises:
            InputError: A value is out of range, or options exclude each other.
        """
        one_of("--search", "search", self.search, SEARCHES)
        one_of("--backend", "backend", self.backend, BACKENDS)
        if self.backend == "numba":
            compiled("numba")  # says so where it is not installed
        tail_fraction = self._tail_fraction(names)
        shape = schedule_named(self.schedule)
        if isinstance(shape, EqualPieces) and shape.num_pieces > MOST_PIECES:
            raise InputError(
                f"--schedule: takes at most {MOST_PIECES} pieces, got "
                f"{shape.num_pieces}."
            )
        self._refuse_beside(shape)
        tuning = Tuning(
            search=cast("SearchName", self.search),
            schedule=shape,
            given=self._given(names),
            tail_fraction=tail_fraction,
            max_steps=self.max_steps,
            settling=self.settling,
            grow=self.grow,
            backend=cast("Backend", self.backend),
        )
        for name in names:
            tuning.check(name)
        return tuning

    def _tail_fraction(self, names: Sequence[OptimizerName]) -> float:
        """Return the share that a tail average takes."""
        share = self.tail_fraction
        if share is None:
            return TAIL_FRACTION
        if not 0 < share <= 1:
            raise InputError(f"--tail-fraction: must be in (0, 1], got {share:g}.")
        if "tail-average" not in names:
            raise InputError(
                f"--tail-fraction: {', '.join(names)} has none.", "tail-average has"
            )
        if self.schedule != "constant":
            raise InputError(
                f"--tail-fraction: is a half under --schedule {self.schedule}.",
                "leave one of the two out",
            )
        return share

    def _refuse_beside(self, shape: Shape | EqualPieces) -> None:
        """Refuse options that exclude each other."""
        if str(shape) == "constant":
            if self.grow:
                raise InputError(
                    "--grow: needs a --schedule that decays.",
                    "such as --schedule pieces:10",
                )
            if self.search == "grid" and self.lr:
                raise InputError("--lr: leaves nothing to --search grid.")
            return
        wished = {
            "--settling": self.settling,
            "--lr": self.lr is not None,
            "--search grid": self.search == "grid",
        }
        for option, given in wished.items():
            if given:
                raise InputError(
                    f"{option}: is for a constant learning rate, got --schedule "
                    f"{shape}.",
                    "leave one of them out",
                )

    def _given(self, names: Sequence[OptimizerName]) -> Grid | None:
        """Return the settings to try, None for a search."""
        momenta = self._memory("momentum", self.momentum, names)
        ema_decays = self._memory("ema_decay", self.ema_decay, names)
        if self.lr is None:
            return None
        lrs = np.array(parse_positive("--lr", self.lr))
        return Grid(lrs=lrs, momenta=momenta, ema_decays=ema_decays)

    def _memory(
        self, setting: str, text: str | None, names: Sequence[OptimizerName]
    ) -> FloatArray:
        """Return given momenta or decays, 0 where no optimizer has any."""
        option = f"--{setting.replace('_', '-')}"
        users = [name for name in names if _has(name, setting)]
        if text is None:
            if self.lr is not None and users:
                raise InputError(
                    f"{option}: is missing; {users[0]} with a given --lr needs it.",
                    "leave --lr out to have all settings tuned",
                )
            return NO_SETTING
        if self.lr is None:
            raise InputError(
                f"{option}: needs --lr.", "without both, all settings are tuned"
            )
        if not users:
            raise InputError(
                f"{option}: {', '.join(names)} has none.", _MEMORIES[setting]
            )
        values = parse_numbers(option, text)
        for value in values:
            if not 0 <= value < 1:
                raise InputError(f"{option}: must be in [0, 1), got {value:g}.")
        return np.array(values)


def quickest_backend(
    tuning: Tuning, names: Sequence[OptimizerName], num_cells: int, num_nodes: int
) -> Backend:
    """Return what computes a table soonest, numbers being the same either way.

    A small table is done with numpy before numba is loaded, unless the loss is to be
    followed past the target with momentum: that takes numpy seconds a cell.

    Args:
        tuning: With the backend asked for.
        names: The optimizers.
        num_cells: Of each.
        num_nodes: Of the problem.

    Returns:
        The one asked for; for ``auto`` numpy, or numba where it is there.
    """
    if tuning.backend != "auto":
        return tuning.backend
    work = num_cells * sum(_NUMPY_SECONDS[name] for name in names)
    small = work * num_nodes < LOADING_SECONDS * _USUAL_NODES
    searched = tuning.search == "continuous" and not tuning.is_scheduled
    followed = tuning.settling and any(_has(name, "momentum") for name in names)
    if find_spec("numba") is None or (small and searched and not followed):
        return "numpy"
    return "numba"


def _has(name: OptimizerName, setting: str) -> bool:
    if setting == "ema_decay":
        return name.endswith("ema")
    return name.startswith(("momentum", "nesterov"))
