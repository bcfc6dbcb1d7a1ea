"""How the updates of a sweep's runs are made: the tier, and its choice by timing.

``plain``: each run by itself. ``stacked``: the learning rates and seeds of one batch
size in lockstep (:mod:`rightbatch.experiments.lockstep`). ``compiled``: these, several
whole steps as one compiled function (:mod:`rightbatch.engine.compiled`). All give each
run the same trajectory to float rounding, which after many steps may move a crossing,
the more so the less stable the learning rate; what a seed stands for is the same.
``auto`` times the first two where that is worth its while and keeps the faster; it
compiles where a stack's steps are mostly overhead and so many that this pays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import process_time
from typing import Literal, get_args

from rightbatch._checks import one_of
from rightbatch.engine import (
    Forward,
    Found,
    Stack,
    Update,
    find_forward,
    make_update,
    objection_to_compiling,
)
from rightbatch.errors import InputError
from rightbatch.experiments.randomness import derived_seed
from rightbatch.experiments.run import loss_file
from rightbatch.sampler import ExampleStream, SideBySide
from rightbatch.sampler.image_layout import layout_for
from rightbatch.workload import Workload, failing_as

Tier = Literal["plain", "stacked", "compiled"]
Asked = Literal["auto", "plain", "stacked", "compiled"]
TIERS: dict[str, Tier] = {name: name for name in get_args(Tier)}
ASKED: tuple[str, ...] = get_args(Asked)

# More members add little and need cache; fewer leave more units to spread.
MAX_MEMBERS = 24
# Timing may take this share of what the runs are expected to take, and a second.
TIMING_SHARE = 0.05
TIMING_SECONDS = 1.0
# Setting up, and a few steps of each tier.
MIN_TIMING_SECONDS = 0.25
# Fewer updates are not worth a choice that a clock has part in.
MIN_UPDATES = 30_000
WARM_UP_STEPS = 2
FEW_STEPS = 10
# Timings differ by a few percent from one to the next; the choice should not.
MIN_GAIN = 1.1
# Untimed, half the gain at half the batch size is expected, and believed down to this.
MIN_EXPECTED_GAIN = 2.0
# A compile of a small MLP takes 17 s of CPU at a batch of 1 and 30 at 8, once in each
# process, and its steps a seventh and a third of the time: in two minutes of stacked
# steps that is back three times over.
MIN_SECONDS_TO_COMPILE = 120.0
# Compiled, overhead goes and arithmetic stays. The gain of a stack over one run at a
# time is a large share of its members where its step is mostly overhead still: of 18 it
# is 8 on a small MLP at a batch of 1, 6 at 8, and 3.4 on a LeNet at 1, whose compile
# takes 49 s and makes it 1.5 times as fast.
MIN_OVERHEAD = 0.3
# Two members show whether each gets its own gradients, and a few rows whether each
# row counts.
PROBE_MEMBERS = 2
PROBE_ROWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TierChoice:
    """How the runs of one batch size are made, and why.

    Args:
        tier: ``"plain"``, ``"stacked"`` or ``"compiled"``.
        reason: In a few words.
        gain: Updates per second of ``"stacked"`` over those of ``"plain"``, both
            summed over the members; None where it is not known.

    Example:
        >>> print(TierChoice(tier="plain", reason="as asked"))
        plain (as asked)
    """

    tier: Tier
    reason: str
    gain: float | None = None

    def __str__(self) -> str:
        return f"{self.tier} ({self.reason})"


def find_stacking(workload: Workload, batch_size: int) -> Found:
    """Return how the workload's models can be stacked, or why they cannot.

    Args:
        workload: Fresh models of it are tried, on its own examples.
        batch_size: Examples per step; a few of them are tried.

    Raises:
        WorkloadFailedError: The workload's own code raised.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> find_stacking(mlp(), 8).forward.name
        'twin'
    """
    if workload.collate is not None or workload.example_count is not None:
        return Found(None, "its items are collated one by one")
    if workload.ema_decay is not None:
        return Found(None, "averages of its weights are kept")
    streams = [_stream(workload, seed) for seed in range(PROBE_MEMBERS)]
    if not SideBySide.fits(streams):
        return Found(None, "its items are not rows of tensors")
    updates = [
        _update(workload, seed, workload.lrs[0]) for seed in range(PROBE_MEMBERS)
    ]
    rows = min(batch_size, PROBE_ROWS)
    with failing_as(f"{workload.name} (batch size {rows})", loss_file(workload)):
        return find_forward(updates, [stream.next(rows) for stream in streams])


def choose_tier(
    workload: Workload,
    batch_size: int,
    members: Sequence[tuple[float, int]],
    *,
    asked: str,
    expected_updates: float,
    at_half: TierChoice | None = None,
) -> TierChoice:
    """Return the tier for the runs of one batch size.

    Args:
        workload: What they train.
        batch_size: Examples per step.
        members: Learning rate and seed of those that would be together.
        asked: A tier, or ``"auto"`` to time plain and stacked where 5 % of the
            expected seconds suffice for that.
        expected_updates: Of all the runs at this batch size; a guess will do.
        at_half: The choice at half this batch size, or more.

    Raises:
        InputError: There is no tier of that name, or ``"stacked"`` or ``"compiled"``
            was asked for and cannot be had; it says why.
        WorkloadFailedError: One of them was asked for and the workload's own code
            raised.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> members = [(0.1, 0), (0.1, 1)]
        >>> choice = choose_tier(mlp(), 8, members, asked="auto", expected_updates=10)
        >>> print(choice)
        plain (too short to be timed)
    """
    one_of("sweep", "tier", asked, ASKED)
    if asked != "auto":
        return _as_asked(workload, batch_size, TIERS[asked])
    if len(members) < 2:
        return TierChoice(tier="plain", reason="one run")
    if expected_updates < MIN_UPDATES:
        return _untimed(at_half)
    return _choice(workload, batch_size, members, expected_updates, at_half)


def _as_asked(workload: Workload, batch_size: int, tier: Tier) -> TierChoice:
    reason = "" if tier == "plain" else find_stacking(workload, batch_size).reason
    if tier == "compiled" and not reason:
        reason = _objection_to_compiling(workload)
    if reason:
        others = "auto or plain" if tier == "stacked" else "auto, stacked or plain"
        raise InputError(
            f"sweep: `tier` {tier} cannot be had for {workload.name}: {reason}.",
            f"ask for {others}",
        )
    return TierChoice(tier=tier, reason="as asked")


def _objection_to_compiling(workload: Workload) -> str:
    return objection_to_compiling([_update(workload, 0, workload.lrs[0])])


def _choice(
    workload: Workload,
    batch_size: int,
    members: Sequence[tuple[float, int]],
    expected_updates: float,
    at_half: TierChoice | None,
) -> TierChoice:
    try:
        plain = _plain_steps(workload, batch_size, *members[0])
        seconds = _seconds_per_step(plain, 0.0)
    except Exception:
        # Told of where it belongs: by the run itself.
        return TierChoice(tier="plain", reason="it fails")
    allowed = min(TIMING_SECONDS, TIMING_SHARE * expected_updates * seconds)
    if allowed < MIN_TIMING_SECONDS:
        return _untimed(at_half)
    if 2 * WARM_UP_STEPS * len(members) * seconds > allowed:
        return TierChoice(tier="plain", reason="arithmetic outweighs overhead")
    try:
        # A few rows may be too few for it.
        found = find_stacking(workload, batch_size)
        if found.forward is None:
            return TierChoice(tier="plain", reason=found.reason)
        stacked = _stacked_steps(workload, batch_size, members, found.forward)
        together = _seconds_per_step(stacked, allowed / 2)
    except Exception as error:
        # All of them may not fit into memory where each does.
        return TierChoice(tier="plain", reason=f"stacked: {type(error).__name__}")
    alone = _seconds_per_step(plain, allowed / 2)
    choice = _faster(len(members) * alone / together, "timed")
    seconds = expected_updates / len(members) * together
    return _compiled_if_worth_it(workload, choice, len(members), seconds)


def _compiled_if_worth_it(
    workload: Workload, choice: TierChoice, members: int, seconds: float
) -> TierChoice:
    gain = choice.gain or 0.0
    if seconds < MIN_SECONDS_TO_COMPILE or gain < max(MIN_GAIN, MIN_OVERHEAD * members):
        return choice
    if _objection_to_compiling(workload):
        return choice
    reason = f"{choice.reason}; compiling pays in {seconds:.0f} s of it"
    return replace(choice, tier="compiled", reason=reason)


def seed_groups(seeds: Sequence[int], num_lrs: int) -> list[tuple[int, ...]]:
    """Return the seeds whose runs share a stack, in groups of about one size.

    It depends on the numbers alone, not on how many processes there are: what is in a
    stack may change the last bits of its sums.

    Example:
        >>> seed_groups(range(10), 6)
        [(0, 1, 2, 3), (4, 5, 6), (7, 8, 9)]
    """
    most = max(1, MAX_MEMBERS // num_lrs)
    count = -(-len(seeds) // most)
    size, longer = divmod(len(seeds), count)
    groups: list[tuple[int, ...]] = []
    start = 0
    for place in range(count):
        stop = start + size + (place < longer)
        groups.append(tuple(seeds[start:stop]))
        start = stop
    return groups


def _untimed(at_half: TierChoice | None) -> TierChoice:
    gain = None if at_half is None or at_half.gain is None else at_half.gain / 2
    if gain is None or gain < MIN_EXPECTED_GAIN:
        return TierChoice(tier="plain", reason="too short to be timed")
    return _faster(gain, "expected")


def _faster(gain: float, how: str) -> TierChoice:
    return TierChoice(
        tier="stacked" if gain >= MIN_GAIN else "plain",
        reason=f"stacked is {gain:.2g} times as fast, {how}",
        gain=gain,
    )


def _seconds_per_step(step: Callable[[], object], seconds: float) -> float:
    """Return the best of some turns' mean: what else goes on only ever adds to it."""
    for _ in range(WARM_UP_STEPS):
        step()
    best, spent, count = float("inf"), 0.0, 1
    while True:
        start = process_time()
        for _ in range(count):
            step()
        now = process_time() - start
        best, spent = min(best, now / count), spent + now
        if spent >= seconds and count > 1:
            return best
        # Ten turns or so in all.
        count = max(FEW_STEPS, int(seconds / 10 / max(best, 1e-9)))


def _plain_steps(
    workload: Workload, batch_size: int, lr: float, seed: int
) -> Callable[[], object]:
    update, stream = _update(workload, seed, lr), _stream(workload, seed)
    layout = layout_for(update.model, workload.loss, stream.next(batch_size))
    return lambda: update(layout(stream.next(batch_size)))


def _stacked_steps(
    workload: Workload,
    batch_size: int,
    members: Sequence[tuple[float, int]],
    forward: Forward,
) -> Callable[[], object]:
    stack = Stack([_update(workload, s, lr) for lr, s in members], forward)
    streams = SideBySide([_stream(workload, s) for _, s in members], batch_size)
    return lambda: stack(streams.next())


def _update(workload: Workload, seed: int, lr: float) -> Update:
    model = workload.model(seed).train()
    return make_update(model, workload.optimizer_for(model), workload.loss, lr)


def _stream(workload: Workload, seed: int) -> ExampleStream:
    return ExampleStream(
        workload.train,
        derived_seed(seed, 1),
        collate=workload.collate,
        example_count=workload.example_count,
    )
