"""Act: the learning rate and its kin follow the batch, on top of any schedule."""

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch.optim import SGD, Adam, AdamW, NAdam, Optimizer, RMSprop
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from rightbatch import _checks
from rightbatch.controller.guard import Guard
from rightbatch.errors import InputError
from rightbatch.lr_scaling import (
    LR_RULES,
    Settings,
    Transfer,
    find_rule,
    steps_factor,
    transfer,
)

COUNTS = ("auto", "steps", "examples", "progress")
_FOLLOWING = ("momentum", "betas", "alpha", "eps", "weight_decay")
# What torch calls the optimizers of `Settings`, subclasses after their parents' names.
_NAMES: dict[type[Optimizer], str] = {
    SGD: "sgd",
    AdamW: "adamw",
    Adam: "adam",
    NAdam: "nadam",
    RMSprop: "rmsprop",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Acting:
    """What is done to the optimizer besides serving the batch.

    Args:
        lr_batch_size: The batch size that learning rate and betas were chosen for; the
            first one served when None.
        half_life: As :func:`rightbatch.lr_scaling.transfer` has it.
        keep: Settings left as they are, as there.
        scheduler: The user's own, stepped here after each update.
        counts: How far an update moves it: "steps", one; "examples", B over
            `lr_batch_size`, so that it ends at the same example; "progress", the gain
            of AdaScale; "auto", progress under an AdaScale rule and else examples.
        scaler: Of automatic mixed precision.
        max_grad_norm: Gradients longer than that are clipped to it.
        guard: When a run counts as lost; None to never stop one.

    Raises:
        InputError: A setting is not one of its choices or out of its range.

    Example:
        >>> Acting(counts="steps").lr_batch_size is None
        True
    """

    lr_batch_size: float | None = None
    half_life: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    scheduler: LRScheduler | None = None
    counts: Literal["auto", "steps", "examples", "progress"] = "auto"
    scaler: torch.amp.GradScaler | None = None
    max_grad_norm: float | None = None
    guard: Guard | None = field(default_factory=Guard)

    def __post_init__(self) -> None:
        _checks.one_of("Acting", "counts", self.counts, COUNTS)
        for name in ("lr_batch_size", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None:
                _checks.positive("Acting", name, value)


class Follower:
    """Changes an optimizer's settings for one step, and puts them back.

    A scheduler, and whoever else reads ``param_groups`` between steps, sees the user's
    own values: nothing is overwritten for good, and nothing has to be undone.

    Args:
        optimizer: Any.
        rule: Of `LR_RULES`, ``auto`` for what suits the optimizer, or ``none``: the
            settings stay as they are.
        acting: How.
        noise: Whether the noise scale is measured.

    Raises:
        InputError: There is no such rule, or it needs a noise scale.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = SGD([weight], lr=0.1)
        >>> follower = Follower(optimizer, "linear", Acting(lr_batch_size=16))
        >>> with follower.applied(64, None, 1.0) as lr:
        ...     lr == optimizer.param_groups[0]["lr"] == 0.4
        True
        >>> optimizer.param_groups[0]["lr"]
        0.1
    """

    def __init__(
        self, optimizer: Optimizer, rule: str, acting: Acting, *, noise: bool = True
    ) -> None:
        if rule not in ("none", "auto"):
            key = rule.partition(":")[0].replace("-", "_")
            _checks.one_of(
                "BatchSizeController", "lr_rule", key, ["none", "auto", *LR_RULES]
            )
            find_rule(rule)
        self.rule = rule
        self._has_noise = noise
        if self.needs_noise_scale and not noise and rule != "auto":
            raise InputError(
                f"BatchSizeController: `lr_rule` {rule} needs the noise scale, which "
                "this loop does not measure.",
                "give Sensing(noise='auto')",
            )
        self.lr_batch_size = acting.lr_batch_size
        self._optimizer, self._acting = optimizer, acting
        self._known: tuple[Any, ...] = ()
        self._moves: list[_Move] = []
        self.warnings: tuple[str, ...] = ()
        self.last_factor = 1.0
        self._last_rule = rule.replace("-", "_")

    @property
    def needs_noise_scale(self) -> bool:
        """Whether the rule waits for a noise scale before it changes anything."""
        if self.rule == "auto":
            return self._has_noise
        return self.rule != "none" and find_rule(self.rule)[0].needs_noise_scale

    @property
    def is_idle(self) -> bool:
        """Whether the rule never changes anything."""
        return self.rule == "none"

    def start(self, batch_size: float) -> float:
        """Take notice of the first batch, and return the first group's rate as it is.

        Args:
            batch_size: Served.

        Returns:
            That rate.
        """
        if self.lr_batch_size is None:
            self.lr_batch_size = batch_size
        self.last_factor = 1.0
        return float(self._optimizer.param_groups[0]["lr"])

    @contextmanager
    def applied(
        self, batch_size: float, noise_scale: float | None, lr_factor: float
    ) -> Generator[float]:
        """Change the settings for the step inside the block.

        Args:
            batch_size: Served.
            noise_scale: As known; a rule that needs one waits for it, changing nothing.
            lr_factor: Of the policy, on top.

        Yields:
            The learning rate of the first group.
        """
        groups = self._optimizer.param_groups
        moves = self._moves_for(batch_size, noise_scale)
        self.last_factor = moves[0].lr_factor if moves else 1.0
        if not moves and lr_factor == 1:
            yield float(groups[0]["lr"])
            return
        saved: list[dict[str, Any]] = []
        for place, group in enumerate(groups):
            changed = dict(moves[place].values) if moves else {}
            factor = lr_factor * (moves[place].lr_factor if moves else 1.0)
            changed["lr"] = group["lr"] * factor
            saved.append({name: group[name] for name in changed})
            group.update(changed)
        try:
            yield float(groups[0]["lr"])
        finally:
            for group, values in zip(groups, saved, strict=True):
                group.update(values)

    def progress(self, batch_size: float, noise_scale: float | None) -> float:
        """Return how many of the schedule's steps this update is."""
        counts, base = self._acting.counts, self.lr_batch_size or batch_size
        adascale = self._last_rule.startswith("adascale")
        if counts == "auto":
            counts = "progress" if adascale else "examples"
        if counts == "progress" and adascale:
            if noise_scale is None:
                return 1.0
            return steps_factor(self._last_rule, base, batch_size, noise_scale)
        return 1.0 if counts == "steps" else batch_size / base

    def _moves_for(self, batch_size: float, noise_scale: float | None) -> "list[_Move]":
        if self.lr_batch_size is None:
            self.lr_batch_size = batch_size
        if self.rule == "none":
            return []
        base, groups = self.lr_batch_size, self._optimizer.param_groups
        # A scheduler may move betas and decay as well, and groups may come in later.
        others = [tuple(map(group.get, _FOLLOWING)) for group in groups]
        known = (base, batch_size, noise_scale, others)
        if known == self._known:
            return self._moves
        self._known = known
        waits = self.needs_noise_scale and noise_scale is None
        self._moves = (
            []
            if waits or batch_size == base
            else [self._move(group, base, batch_size, noise_scale) for group in groups]
        )
        return self._moves

    def _move(
        self,
        group: dict[str, Any],
        base: float,
        batch_size: float,
        noise_scale: float | None,
    ) -> "_Move":
        settings = settings_of(self._optimizer, group)
        given = settings.given()
        moved = transfer(
            settings,
            base,
            batch_size,
            rule=self.rule,
            noise_scale=noise_scale,
            half_life=[name for name in self._acting.half_life if name in given],
            keep=[name for name in self._acting.keep if name in given],
        )
        self._last_rule = moved.rule
        self.warnings = tuple(dict.fromkeys((*self.warnings, *moved.warnings)))
        return _Move(moved.lr_factor, _torch_values(group, moved))


@dataclass(frozen=True, slots=True)
class _Move:
    """What changes in one parameter group: a factor, and new values by torch's name."""

    lr_factor: float
    values: dict[str, Any]


def settings_of(optimizer: Optimizer, group: dict[str, Any]) -> Settings:
    """Return a parameter group as `Settings`, its learning rate as 1.

    An optimizer that is not known is taken for SGD with nothing but a learning rate.
    Weight decay is given where it is apart from the gradient, as AdamW's.

    Args:
        optimizer: Whose.
        group: One of its ``param_groups``.

    Returns:
        What the rules may change.

    Example:
        >>> adamw = AdamW([torch.nn.Parameter(torch.ones(1))])
        >>> settings_of(adamw, adamw.param_groups[0]).weight_decay
        0.01
    """
    name = next((n for kind, n in _NAMES.items() if isinstance(optimizer, kind)), "")
    if not name:
        return Settings(optimizer="sgd", lr=1.0)
    betas = group.get("betas") or (None, group.get("alpha"))
    apart = name == "adamw" or group.get("decoupled_weight_decay", False)
    return Settings(
        optimizer=name,
        lr=1.0,
        momentum=group.get("momentum") or None,
        beta1=betas[0],
        beta2=betas[1],
        eps=group.get("eps"),
        weight_decay=(group.get("weight_decay") or None) if apart else None,
    )


def _torch_values(group: dict[str, Any], moved: Transfer) -> dict[str, Any]:
    new = {one.setting: one.new for one in moved.changes if one.setting != "lr"}
    values: dict[str, Any] = {
        name: new[name] for name in ("momentum", "eps", "weight_decay") if name in new
    }
    if "betas" in group and ("beta1" in new or "beta2" in new):
        old = group["betas"]
        values["betas"] = (new.get("beta1", old[0]), new.get("beta2", old[1]))
    elif "alpha" in group and "beta2" in new:
        values["alpha"] = new["beta2"]
    return values


def check_scheduler(scheduler: LRScheduler, optimizer: Optimizer) -> None:
    """Check that a schedule can be moved by the controller.

    Args:
        scheduler: The user's.
        optimizer: The controller's.

    Raises:
        InputError: It wants a measurement at each step, or moves another optimizer.
    """
    who = "BatchSizeController: `scheduler`"
    if isinstance(scheduler, ReduceLROnPlateau):
        raise InputError(
            f"{who} must need nothing to step, got ReduceLROnPlateau.",
            "leave it out and step it in the loop; the rule is on top of it all the "
            "same",
        )
    if hasattr(scheduler, "optimizer") and scheduler.optimizer is not optimizer:
        raise InputError(f"{who} is of another optimizer.", "make it of this one")


class ScheduleClock:
    """Steps the user's scheduler as far as an update moved it.

    Args:
        scheduler: Any of torch's.

    Example:
        >>> optimizer = SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
        >>> clock = ScheduleClock(scheduler)
        >>> optimizer.step()
        >>> for _ in range(3):
        ...     clock.advance(1.5)
        >>> optimizer.param_groups[0]["lr"], clock.progress
        (0.5, 4.5)
    """

    def __init__(self, scheduler: LRScheduler) -> None:
        self._scheduler = scheduler
        self.reset()
        # A batch that straddles the end must not take such a schedule past its last.
        own: Any = scheduler
        self._most = own.total_steps if hasattr(own, "total_steps") else math.inf

    def reset(self) -> None:
        """Count from nothing; the scheduler stays where it is."""
        self.progress = 0.0
        self._done = 0

    def advance(self, steps: float) -> None:
        """Move the schedule by `steps` of its own; fractions add up."""
        self.progress += steps
        # A sum of tenths must not stay a rounding error below its whole number.
        while self._done + 1 <= min(self.progress + 1e-9, self._most):
            self._scheduler.step()
            self._done += 1

    def state_dict(self) -> dict[str, float]:
        """Return where the schedule is; the scheduler's own state is the user's."""
        return {"progress": self.progress, "done": self._done}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.progress, self._done = float(state["progress"]), int(state["done"])
