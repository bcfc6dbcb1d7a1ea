"""Whether it pays, in a sentence, and what to bear in mind."""

from collections.abc import Sequence
from typing import Any

from rightbatch.experiments.train_payoff import Payoff, Spread
from rightbatch.experiments.train_record import TrainingRun
from rightbatch.reporting.formats import number, replicas_text, times


def payoff_sentence(payoffs: Sequence[Payoff], replicas: Sequence[int]) -> str:
    """Return whether growing the batch paid, the answer first.

    Args:
        payoffs: One per policy beside the baseline.
        replicas: Numbers of replicas that were priced.

    Returns:
        One sentence, and where needed a few that qualify it.

    Example:
        >>> from rightbatch.experiments.train_payoff import Spread
        >>> ratio = {1: Spread(1.2, 1.2, 1.2), 8: Spread(0.4, 0.4, 0.4)}
        >>> one = Payoff(policy="adadamp", against="constant", loss=0.31,
        ...     basis="lowest", target=None, reached=(0, 0), num_seeds=1,
        ...     steps=Spread(0.2, 0.2, 0.2), examples=Spread(1.1, 1.1, 1.1),
        ...     seconds=ratio)
        >>> payoff_sentence([one], [1, 8])
        'adadamp pays on 8 replicas, not on 1: to the loss 0.31, the lowest that both \
reach, it takes 0.2× the updates, 1.1× the examples, 1.2× the seconds on 1 replica and \
0.4× on 8 of constant. One seed does not tell this from chance.'
    """
    if not payoffs:
        return ""
    first = (
        _single(payoffs[0], replicas) if len(payoffs) == 1 else _many(payoffs, replicas)
    )
    said = [first]
    if len(payoffs) == 1:
        said += _target_words(payoffs[0])
    seeds = max(one.num_seeds for one in payoffs)
    if any(one.loss is not None for one in payoffs):
        said.append(
            "One seed does not tell this from chance."
            if seeds == 1
            else f"Medians of {seeds} seeds."
        )
    return " ".join(said)


def _single(payoff: Payoff, replicas: Sequence[int]) -> str:
    policy, against = payoff.policy, payoff.against
    if payoff.loss is None or payoff.steps is None or payoff.examples is None:
        return (
            f"{policy} and {against} cannot be compared: there is no loss below the "
            "first that both reach."
        )
    where = (
        f"the target {number(payoff.loss)}"
        if payoff.basis == "target"
        else f"the loss {number(payoff.loss)}, the lowest that both reach,"
    )
    took = [
        f"{_ratio(payoff.steps)} the updates",
        f"{_ratio(payoff.examples)} the examples",
    ]
    took += [
        f"{_ratio(payoff.seconds[p])} "
        + (f"the seconds on {replicas_text(p)}" if place == 0 else f"on {p}")
        for place, p in enumerate(replicas)
    ]
    listed = f"{', '.join(took[:-1])} and {took[-1]}"
    return f"{_verdict(payoff, replicas)}: to {where} it takes {listed} of {against}."


def _verdict(payoff: Payoff, replicas: Sequence[int]) -> str:
    if payoff.misses_target:
        return (
            f"{payoff.policy} does not reach the target {number(payoff.target)} on "
            f"these examples, {payoff.against} does"
        )
    on = {
        verdict: [p for p in replicas if payoff.pays(p) == verdict]
        for verdict in ("yes", "no", "unclear")
    }
    if not on["yes"] and not on["unclear"]:
        return f"{payoff.policy} does not pay on {_either(on['no'], 'or')}"
    parts: list[str] = []
    if on["yes"]:
        parts.append(f"{payoff.policy} pays on {_either(on['yes'], 'and')}")
    if on["no"]:
        numbers = " or ".join(map(str, on["no"]))
        parts.append(
            f"not on {numbers}"
            if parts
            else f"{payoff.policy} does not pay on {_either(on['no'], 'or')}"
        )
    if on["unclear"]:
        where = _either(on["unclear"], "and")
        parts.append(
            f"seeds disagree on {where}"
            if parts
            else f"Whether {payoff.policy} pays on {where} is unclear, seeds disagree"
        )
    return ", ".join(parts)


def _many(payoffs: Sequence[Payoff], replicas: Sequence[int]) -> str:
    against = payoffs[0].against
    best: dict[str, list[int]] = {}
    for p in replicas:
        paying = [one for one in payoffs if one.pays(p) == "yes"]
        first = min(paying, key=lambda one: one.seconds[p].value, default=None)
        best.setdefault("" if first is None else first.policy, []).append(p)
    told: list[str] = []
    for name, on in best.items():
        if not name:
            told.append(f"none pays on {_either(on, 'or')}")
            continue
        one = next(one for one in payoffs if one.policy == name)
        ratios = " and ".join(_ratio(one.seconds[p]) for p in on)
        told.append(
            f"{name} gains most on {_either(on, 'and')} ({ratios} the seconds to the "
            f"loss {number(one.loss)})"
        )
    missing = [one for one in payoffs if one.misses_target]
    if missing:
        misses = "misses" if len(missing) == 1 else "miss"
        told.append(
            f"{len(missing)} {misses} the target {number(missing[0].target)}, which "
            f"{against} reaches"
        )
    return f"Of {len(payoffs)} policies beside {against}, {', '.join(told)}."


def _target_words(payoff: Payoff) -> list[str]:
    target, (mine, others) = payoff.target, payoff.reached
    if target is None or payoff.basis == "target":
        return []
    if not mine and not others:
        return [f"The target {number(target)} was not reached by either."]
    if payoff.num_seeds == 1 and payoff.misses_target:
        return []
    return [
        f"The target {number(target)} was reached by {mine} of {payoff.num_seeds} runs "
        f"of {payoff.policy} and by {others} of {payoff.against}."
    ]


def _either(replicas: Sequence[int], word: str) -> str:
    if len(replicas) == 1:
        return replicas_text(replicas[0])
    *head, last = map(str, replicas)
    return f"{', '.join(head)} {word} {last} replicas"


def _ratio(spread: Spread) -> str:
    text = times(spread.value)
    if spread.low == spread.high:
        return text
    return f"{text} ({number(spread.low)}–{number(spread.high)})"


def train_warnings(runs: Sequence[TrainingRun], largest: int) -> list[str]:
    """Return what to bear in mind, one sentence each, without full stops.

    Args:
        runs: All of them.
        largest: The batch size that none may exceed.

    Returns:
        The sentences.
    """
    said: list[str] = []
    for run in runs:
        where = f"{run.policy}, seed {run.seed}"
        said += [f"{where}: {note.rstrip('.')}" for note in run.notes]
        if run.status == "interrupted":
            said.append(f"{where}: interrupted after {run.steps} updates")
    at_cap = dict.fromkeys(
        run.policy for run in runs if len(run.trace) and _share_at(run, largest) > 0.5
    )
    if at_cap:
        said.append(
            f"{', '.join(at_cap)}: more than half of the examples at the largest batch "
            f"size, {largest}: --max-batch-size decides more than the policy does"
        )
    noisy = {run.policy for run in runs if run.policy_examples}
    if noisy:
        said.append(
            f"{', '.join(sorted(noisy))}: evaluates a loss of its own, which no price "
            "here holds"
        )
    return list(dict.fromkeys(said))


def _share_at(run: TrainingRun, largest: int) -> float:
    sizes: Any = run.trace.batch_sizes
    return float(sizes[sizes >= largest].sum() / sizes.sum())
