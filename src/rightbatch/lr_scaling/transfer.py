"""Every setting that follows a change of the batch size: old, new, why, and back."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.lr_scaling import rules
from rightbatch.lr_scaling.advice import choose_rule, find_warnings
from rightbatch.lr_scaling.catalogue import (
    SETTING_RULES,
    Rule,
    find_rule,
    lr_factor,
    steps_factor,
)
from rightbatch.lr_scaling.settings import DECAYS, Settings, as_count

_CHECK_FACTORS = (0.5, 1.0, 2.0)
_SETTINGS = tuple(one.name for one in fields(Settings) if one.name != "optimizer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One setting before and after.

    Args:
        setting: Its name in `Settings`.
        old: Value at the old batch size.
        new: Value at the new one.
        rule: The rule that gave it.
        source: Where the rule comes from.
        holds_when: Its condition.
    """

    setting: str
    old: float
    new: float
    rule: str
    source: str
    holds_when: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "setting": self.setting,
            "old": self.old,
            "new": self.new,
            "rule": self.rule,
            "source": self.source,
            "holds_when": self.holds_when,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Settings moved from one batch size to another, each change accounted for.

    Args:
        old: The settings at `from_batch`.
        settings: The settings at `to_batch`.
        from_batch: Old batch size, in examples.
        to_batch: New batch size, in examples.
        rule: For the learning rate, under its name in `LR_RULES`; a power with its
            exponent, as ``power:0.4``.
        why: Why that rule.
        changes: What changes.
        kept: What the rules leave as it is, and why.
        warnings: Conditions that do not hold, or cannot be seen to.
    """

    old: Settings
    settings: Settings
    from_batch: float
    to_batch: float
    rule: str
    why: str
    changes: tuple[Change, ...]
    kept: tuple[Change, ...]
    warnings: tuple[str, ...]

    @property
    def lr_factor(self) -> float:
        """New learning rate over old: a multiplier on top of any scheduler."""
        return self.settings.lr / self.old.lr

    @property
    def check(self) -> tuple[float, ...]:
        """Three learning rates to run at the new batch size: no rule always transfers.

        Half the new rate, the new rate and twice it. Tuned sweeps show exponents from
        .2 to .8 and then a flat stretch; if an end does best, go on past it.
        """
        if not self.changes:
            return ()
        return tuple(factor * self.settings.lr for factor in _CHECK_FACTORS)

    def reversed(self) -> "Transfer":
        """Return the way back: its settings are the old ones, to the last digit.

        A second transfer in the other direction gives them back too, to rounding,
        under one and the same named rule; not under ``auto``, which may choose another
        rule on the way back, nor where an average was too short for Adam's
        differential equation and kept its half-life instead.
        """
        return replace(
            self,
            old=self.settings,
            settings=self.old,
            from_batch=self.to_batch,
            to_batch=self.from_batch,
            why="the way back",
            changes=tuple(replace(c, old=c.new, new=c.old) for c in self.changes),
            warnings=(),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "from_batch": as_count(self.from_batch),
            "to_batch": as_count(self.to_batch),
            "rule": self.rule,
            "why": self.why,
            "lr_factor": self.lr_factor,
            "changes": [change.to_dict() for change in self.changes],
            "kept": [change.to_dict() for change in self.kept],
            "warnings": list(self.warnings),
            "check": list(self.check),
            "settings": self.settings.to_dict(),
        }

    def __str__(self) -> str:
        head = f"batch size {self.from_batch:g} to {self.to_batch:g}, rule {self.rule}"
        lines = [
            f"  {one.setting}: {one.old:.6g} -> {one.new:.6g}  ({one.source})"
            for one in self.changes
        ]
        warned = [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join([head, *(lines or ["  nothing changes"]), *warned])


def transfer(
    settings: Settings,
    from_batch: float,
    to_batch: float,
    *,
    rule: str = "auto",
    noise_scale: float | None = None,
    half_life: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> Transfer:
    r"""Return the settings for another batch size, with every change and its source.

    The learning rate follows `rule`. What the rule leaves open follows its own: an
    average of the weights keeps its half-life in examples, weight decay its timescale
    :math:`\tau`, warm-up and horizon their examples (AdaScale: its clock).

    Args:
        settings: At the old batch size: of a run, or of one parameter group.
        from_batch: Old batch size, in examples.
        to_batch: New batch size, in examples.
        rule: ``auto`` chooses by the optimizer and says why; or a key of `LR_RULES`,
            ``power:0.4`` for an exponent fitted to a tuned sweep.
        noise_scale: phi, in examples: a critical batch size or a gradient noise scale.
        half_life: Averages (`momentum`, `beta1`, `beta2`) that shall keep their
            half-life in examples whatever the rule says of them.
        keep: Settings left as they are.

    Returns:
        The changes and the new settings; nothing is applied.

    Raises:
        InputError: An argument is out of its range, a name is unknown or of a setting
            that was not given, or the rule needs a noise scale.

    Example:
        >>> run = Settings(optimizer="adamw", lr=0.1, beta1=0.9, beta2=0.999, eps=1e-8)
        >>> print(transfer(run, 256, 1024, rule="adam_sde"))
        batch size 256 to 1024, rule adam_sde
          lr: 0.1 -> 0.2  (Malladi et al. (2022))
          beta1: 0.9 -> 0.6  (Malladi et al. (2022))
          beta2: 0.999 -> 0.996  (Malladi et al. (2022))
          eps: 1e-08 -> 5e-09  (Malladi et al. (2022))
    """
    _check_arguments((from_batch, to_batch), noise_scale)
    _check_names("half_life", half_life, settings, DECAYS)
    _check_names("keep", keep, settings, _SETTINGS)
    why = "asked for"
    if rule == "auto":
        rule, why = choose_rule(settings, from_batch, to_batch, noise_scale)
    found, exponent = find_rule(rule)
    move = _Move(
        rule=found,
        ratio=to_batch / from_batch,
        lr_factor=lr_factor(rule, from_batch, to_batch, noise_scale),
        steps_factor=steps_factor(rule, from_batch, to_batch, noise_scale),
        half_life=frozenset(half_life),
        keep=frozenset(keep),
    )
    changes = [
        move.change(name, value)
        for name, value in settings.given().items()
        if name != "dataset_size"
    ]
    new = replace(settings, **{one.setting: one.new for one in changes})
    return Transfer(
        old=settings,
        settings=new,
        from_batch=from_batch,
        to_batch=to_batch,
        rule=found.name if exponent is None else f"{found.name}:{exponent}",
        why=why,
        changes=tuple(one for one in changes if one.new != one.old),
        kept=tuple(one for one in changes if one.new == one.old),
        warnings=find_warnings(
            settings,
            new,
            move.rule,
            batches=(from_batch, to_batch),
            noise_scale=noise_scale,
            steps_factor=move.steps_factor,
            applied={one.setting: one.rule for one in changes},
        ),
    )


def _check_arguments(
    batches: tuple[float, float],
    noise_scale: float | None,
) -> None:
    _checks.positive("transfer", "from_batch", batches[0])
    _checks.positive("transfer", "to_batch", batches[1])
    if noise_scale is not None:
        _checks.positive("transfer", "noise_scale", noise_scale)


def _check_names(
    argument: str, names: Sequence[str], settings: Settings, known: Sequence[str]
) -> None:
    given = settings.given()
    for name in names:
        _checks.one_of("transfer", argument, name, known)
        if name not in given:
            raise InputError(
                f"transfer: `{argument}` names {name}, which was not given.",
                f"give {name}, or leave it out",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """The rule with its factors, ready for any setting."""

    rule: Rule
    ratio: float
    lr_factor: float
    steps_factor: float
    half_life: frozenset[str]
    keep: frozenset[str]

    def change(self, name: str, old: float) -> Change:
        new, by = self._new(name, old)
        return Change(
            setting=name,
            old=old,
            new=new,
            rule=by.name,
            source=by.source,
            holds_when=by.holds_when,
        )

    def _new(self, name: str, old: float) -> tuple[float, Rule]:
        if self.ratio == 1:
            return old, self.rule
        if name in self.keep:
            return old, SETTING_RULES["kept"]
        if name in DECAYS:
            return self._decay(name, old)
        if name in ("warmup_steps", "total_steps"):
            return self._steps(name, old)
        if name == "weight_decay":
            factor = 1.0 if "lr" in self.keep else self.lr_factor
            new = rules.kept_timescale_decay(old, factor, self.steps_factor)
            return new, SETTING_RULES["weight_decay"]
        new = old * self.lr_factor if name == "lr" else self._eps(old)
        return new, self.rule

    def _eps(self, old: float) -> float:
        by_sde = self.rule.name == "adam_sde"
        return rules.sde_eps(old, self.ratio) if by_sde else old

    def _decay(self, name: str, old: float) -> tuple[float, Rule]:
        by_half_life = rules.half_life_decay(old, self.ratio)
        if name == "ema_decay" or name in self.half_life:
            return by_half_life, SETTING_RULES["half_life"]
        if self.rule.name == "adam_sde" and name != "momentum":
            if self.ratio * (1 - old) >= 1 and old:
                return by_half_life, SETTING_RULES["half_life"]
            return rules.sde_decay(old, self.ratio), self.rule
        if self.rule.name == "half_life" and name == "beta2":
            return by_half_life, self.rule
        return old, self.rule

    def _steps(self, name: str, old: float) -> tuple[float, Rule]:
        if self.rule.name == "legw" and name == "warmup_steps":
            return old, self.rule
        by_clock = self.rule.name.startswith("adascale")
        by = self.rule if by_clock else SETTING_RULES["same_examples"]
        return rules.same_progress_steps(old, self.steps_factor), by
