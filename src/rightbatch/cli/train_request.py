"""What the options of ``train`` ask for, everything checked before it starts."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rightbatch._checks import nonnegative, one_of, positive, writable_path
from rightbatch.cli.communication import CommunicationChoice
from rightbatch.cli.train_policies import (
    BASELINE,
    make_policies,
    refuse_unmeasured,
    split_policies,
    with_dwell,
)
from rightbatch.errors import InputError

if TYPE_CHECKING:
    from rightbatch.experiments.train_settings import TrainSettings
    from rightbatch.policies import Policy
    from rightbatch.training_time import StepTimeModel
    from rightbatch.workload import Workload

INITIAL_BATCH_SIZE = 16
EPOCHS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """The options of a training as written; None where not given.

    Args:
        spec: The workload's name.
        policy: One policy.
        compare: Several.
        baseline: Run the constant batch beside them.
        initial_batch_size: At the start.
        max_batch_size: At most.
        micro_batch_size: Batches are multiples of it.
        lr: Learning rate.
        lr_rule: How it follows the batch.
        schedule: Of the learning rate.
        epochs: Where a run ends.
        max_steps: Likewise, in updates.
        max_examples: Likewise, in examples.
        seed: The first one.
        seeds: How many.
        measure_every: Updates between two readings of the noise.
        dwell: Updates between two questions to a policy.
        evaluate_fraction: Of the training data, for a policy's own loss.
        target: A loss, or ``none``.
        replicas: To price at.
        price_per_hour: Of one replica.
        timing_seconds: For measuring step times.
        choice: Communication.
        store: The file.
        resume: Take finished runs from it, and go on with the one under way.
        checkpoint_seconds: Between two checkpoints.
        device: Where.
        data_dir: Where data sets lie.
    """

    spec: str
    policy: str | None
    compare: str | None
    baseline: bool
    initial_batch_size: int | None
    max_batch_size: int | None
    micro_batch_size: int | None
    lr: float | None
    lr_rule: str
    schedule: str | None
    epochs: float | None
    max_steps: int | None
    max_examples: int | None
    seed: int
    seeds: int
    measure_every: int
    dwell: int | None
    evaluate_fraction: float | None
    target: str | None
    replicas: str
    price_per_hour: float | None
    timing_seconds: float
    choice: CommunicationChoice
    store: Path | None
    resume: bool
    checkpoint_seconds: float
    device: str
    data_dir: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What the options ask for.

    Args:
        workload: What is trained.
        names: The policies, as texts, the baseline last if it was not asked for.
        baseline: What the others are compared with; None for nothing.
        seeds: One run of each policy per seed.
        settings: What else decides the runs.
        epochs: Length of a run; None where it ends otherwise.
        target: A loss; None for none.
        replicas: To price at.
        price_per_hour: Of one replica; None where not told.
        dataset_size: Examples.
        store: The file the runs are kept in.
        options: As written.
    """

    workload: "Workload"
    names: tuple[str, ...]
    baseline: str | None
    seeds: tuple[int, ...]
    settings: "TrainSettings"
    epochs: float | None
    target: float | None
    replicas: tuple[int, ...]
    price_per_hour: float | None
    dataset_size: int
    store: Path
    options: TrainOptions

    @property
    def asked(self) -> tuple[str, ...]:
        """The policies without the baseline, unless there is nothing else."""
        others = tuple(name for name in self.names if name != self.baseline)
        return others or self.names

    def policies(self, step_time: "StepTimeModel") -> "dict[str, Policy[Any]]":
        """Return the policies by their texts.

        Args:
            step_time: For those that plan.

        Returns:
            In the order asked for.

        Raises:
            InputError: A text is no policy, or it needs what is not measured here.
        """
        from rightbatch.experiments.train_pricing import OnReplicas
        from rightbatch.lr_scaling import named_schedule
        from rightbatch.policies import PolicyContext

        settings, option = self.settings, self.option
        schedule = settings.schedule
        steps = settings.max_steps
        if settings.max_examples is not None:
            steps = settings.max_examples / settings.initial_batch_size
        planned_for = OnReplicas(step_time=step_time, num_replicas=max(self.replicas))
        made = make_policies(
            option,
            self.names,
            (settings.initial_batch_size, settings.max_batch_size),
            PolicyContext(
                dataset_size=self.dataset_size,
                step_time=planned_for,
                total_steps=steps,
                epochs=self.epochs,
                lr_schedule=None if schedule is None else named_schedule(schedule),
            ),
        )
        for name, policy in made.items():
            refuse_unmeasured(option, name, policy)
        return made

    @property
    def option(self) -> str:
        """The option that names the policies."""
        return "--policy" if self.options.compare is None else "--compare"

    def checkpoint(self, name: str, seed: int) -> Path:
        """Return where a run under way is kept, apart from runs of other settings."""
        parts = [name, seed, self.settings.to_dict()]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return (
            self.store.with_name(f"{self.store.stem}.under-way") / f"{digest[:16]}.pt"
        )

    def inputs(self) -> dict[str, Any]:
        """Return the settings as the JSON document gives them."""
        from rightbatch.experiments.store import versions

        return {
            "workload": self.workload.name,
            "policies": self.names,
            "baseline": self.baseline,
            "seeds": self.seeds,
            **self.settings.to_dict(),
            "epochs": self.epochs,
            "dataset_size": self.dataset_size,
            "target": self.target,
            "replicas": self.replicas,
            "price_per_hour": self.price_per_hour,
            "store": str(self.store),
            "resume": self.options.resume,
            "versions": versions(),
        }


def read_request(options: TrainOptions) -> TrainRequest:
    """Return what the options ask for; the store's folder is there and can be written.

    Args:
        options: As written.

    Returns:
        The request.

    Raises:
        InputError: An option is wrong.
    """
    from rightbatch.cli.options import check_device, parse_counts
    from rightbatch.cli.sweep import default_store, make_folder
    from rightbatch.cli.time import count_examples
    from rightbatch.workload import load_workload

    names, baseline = _names(options)
    replicas = parse_counts("--replicas", options.replicas)
    for name in ("price_per_hour", "checkpoint_seconds"):
        value = getattr(options, name)
        if value is not None:
            nonnegative("train", f"--{name.replace('_', '-')}", value)
    _check_rule(options.lr_rule)
    check_device(options.device)
    workload = load_workload(options.spec, options.data_dir)
    size = count_examples(workload)
    epochs = _epochs(options)
    path = options.store or default_store(workload.name)
    if not options.store:
        make_folder(path.parent)
    writable_path("--store", path)
    request = TrainRequest(
        workload=workload,
        names=names,
        baseline=baseline,
        seeds=tuple(range(options.seed, options.seed + options.seeds)),
        settings=_settings(options, workload, size, epochs),
        epochs=epochs,
        target=_target(options.target, workload),
        replicas=replicas,
        price_per_hour=options.price_per_hour,
        dataset_size=size,
        store=path,
        options=options,
    )
    # Once with any step time, so that a slip is said before anything is measured.
    from rightbatch.step_time import StepTimeLaw

    request.policies(StepTimeLaw(seconds_per_example=1.0, saturation_batch_size=1.0))
    return request


def _names(options: TrainOptions) -> tuple[tuple[str, ...], str | None]:
    from rightbatch.cli.train import POLICY

    if options.compare is not None and options.policy is not None:
        raise InputError(
            "train: give --policy or --compare, got both.",
            "--compare takes several, separated by blanks",
        )
    if options.compare is not None:
        found = split_policies("--compare", options.compare)
    else:
        found = split_policies("--policy", options.policy or POLICY)
        if len(found) > 1:
            raise InputError(
                f"--policy: one policy, got {len(found)}.", "--compare takes several"
            )
    names = tuple(with_dwell(name, options.dwell) for name in found)
    if BASELINE in names:
        return names, BASELINE
    return ((*names, BASELINE), BASELINE) if options.baseline else (names, None)


def _check_rule(rule: str) -> None:
    from rightbatch.lr_scaling import LR_RULES, find_rule

    key = rule.partition(":")[0].replace("-", "_")
    one_of("--lr-rule", "rule", key, ("none", "auto", *LR_RULES))
    if key not in ("none", "auto"):
        find_rule(rule)


def _epochs(options: TrainOptions) -> float | None:
    if options.epochs is not None:
        return positive("train", "--epochs", options.epochs)
    if options.max_steps is None and options.max_examples is None:
        return EPOCHS
    return None


def _settings(
    options: TrainOptions, workload: "Workload", size: int, epochs: float | None
) -> "TrainSettings":
    from rightbatch.cli.noise import middle_lr
    from rightbatch.experiments.train_settings import (
        DEFAULT_GROWTH,
        TrainSettings,
        num_evaluations,
        policy_examples,
    )

    initial = options.initial_batch_size or min(INITIAL_BATCH_SIZE, size)
    largest = options.max_batch_size or min(
        DEFAULT_GROWTH * initial, max(size, initial)
    )
    for option, value in (
        ("--initial-batch-size", initial),
        ("--max-batch-size", largest),
    ):
        if value > size:
            raise InputError(
                f"{option}: {value} is above the {size} examples of {workload.name}."
            )
    ends = [options.max_examples, None if epochs is None else math.ceil(epochs * size)]
    known = [end for end in ends if end is not None]
    end = min(known, default=None)
    data, fraction = policy_examples(
        workload.train,
        workload.evaluate_on,
        on_train=workload.target.on == "train_subset",
        fraction=options.evaluate_fraction,
    )
    return TrainSettings(
        lr=middle_lr(workload) if options.lr is None else options.lr,
        lr_rule=options.lr_rule,
        initial_batch_size=initial,
        max_batch_size=largest,
        micro_batch_size=options.micro_batch_size or initial,
        max_examples=end,
        max_steps=options.max_steps,
        measure_every=options.measure_every,
        schedule=options.schedule,
        num_evaluations=num_evaluations(end, _count(workload.evaluate_on)),
        policy_data=data,
        policy_fraction=fraction,
        device=options.device,
    )


def _count(data: Any) -> int:
    return len(data)


def _target(text: str | None, workload: "Workload") -> float | None:
    from rightbatch.cli.options import parse_numbers

    target = workload.target
    if text is None:
        is_loss = target.metric == "loss" and target.direction == "min"
        return target.value if is_loss else None
    if text.strip().lower() == "none":
        return None
    value, *others = parse_numbers("--target", text)
    if others:
        raise InputError(
            f"--target: one at a time, got {1 + len(others)}.", "the hardest one"
        )
    return value
