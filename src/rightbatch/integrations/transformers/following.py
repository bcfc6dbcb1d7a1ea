"""What a Trainer's callback was given to follow, looked at before any training."""

from dataclasses import dataclass, replace
from typing import Any, Self

from rightbatch import _checks
from rightbatch.controller import Acting, Sensing
from rightbatch.errors import InputError
from rightbatch.integrations.logging import Log
from rightbatch.lr_scaling import LR_RULES, find_rule
from rightbatch.policies import Policy, PolicyContext, check_policy, named_policy

_WHO = "BatchSizeCallback"
# A run of which everything is known that a Trainer ever tells.
_SOME_RUN = PolicyContext(dataset_size=10**9, total_steps=1000, epochs=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """A policy, and how it is followed.

    Args:
        policy: A policy, or the text of one.
        lr_rule: As the controller has it.
        sensing: What is measured.
        acting: What is done to the optimizer.
        log: Told of each update.

    Raises:
        InputError: One of them is something else.

    Example:
        >>> following = Following(policy="geodamp", lr_rule="none", sensing=Sensing(),
        ...     acting=Acting(), log=None)
        >>> following.in_a_run(8, PolicyContext(dataset_size=64)).policy.low
        1
    """

    policy: Policy[Any] | str
    lr_rule: str
    sensing: Sensing
    acting: Acting
    log: Log | None

    def __post_init__(self) -> None:
        if isinstance(self.policy, str):
            named_policy(self.policy, initial_batch_size=1, context=_SOME_RUN)
        else:
            check_policy(_WHO, self.policy)
        _refuse_rule(self.lr_rule)
        for name, kind, way_out in (
            ("sensing", Sensing, "rightbatch.controller.Sensing(noise='examples')"),
            ("acting", Acting, "rightbatch.controller.Acting(lr_batch_size=256)"),
        ):
            given = getattr(self, name)
            if not isinstance(given, kind):
                raise InputError(
                    f"{_WHO}: `{name}` must be {kind.__name__}(...), got {given!r}.",
                    f"write {name}={way_out}",
                )
        given: Any = self.log
        if given is not None and not callable(given):
            raise InputError(
                f"{_WHO}: `log` must be callable, got {given!r}.",
                "give log(numbers, step), such as "
                "rightbatch.integrations.logging.CsvLog(path)",
            )

    def in_a_run(self, initial_batch_size: int, context: PolicyContext) -> Self:
        """Return the same with the policy that a text stands for in a run.

        Args:
            initial_batch_size: Of the text's policy.
            context: What the run knows.

        Returns:
            It.
        """
        if not isinstance(self.policy, str):
            return self
        size = initial_batch_size
        policy = named_policy(self.policy, initial_batch_size=size, context=context)
        return replace(self, policy=policy)


def _refuse_rule(rule: Any) -> None:
    if not isinstance(rule, str):
        raise InputError(
            f"{_WHO}: `lr_rule` must be the name of a rule, got {rule!r}.",
            f"one of none, auto, {', '.join(LR_RULES)}",
        )
    if rule not in ("none", "auto"):
        name = rule.partition(":")[0].replace("-", "_")
        _checks.one_of(_WHO, "lr_rule", name, ["none", "auto", *LR_RULES])
        find_rule(rule)
