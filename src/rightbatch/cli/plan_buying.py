"""Runs of a plan, bought one at a time until the regret of its batch is small."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightbatch.cli.output import Output
from rightbatch.errors import InputError, InterruptedRunError

if TYPE_CHECKING:
    from rightbatch.cli.planning import Findings, PlanOptions
    from rightbatch.cli.sweep import SweepRequest
    from rightbatch.experiments.adaptive import Bill, BoughtRuns
    from rightbatch.experiments.record import Run
    from rightbatch.experiments.store import RunStore
    from rightbatch.step_time import StepTimeFit
    from rightbatch.training_time import BatchLimits
    from rightbatch.training_time.next_run import Assessment, Buyer

GOAL = "5%"
# Given with these, the whole grid is run.
OF_GRID = ("batch_sizes", "seeds")
OF_THREE_PARAMETERS = ("knee", "floor")
OF_BUYING = ("regret", "budget")
NOTHING_BOUGHT: dict[str, Any] = {"purchase": [], "regret": None}
# Below 4 a run costs more than it tells; past 4,096, a corner is rarely looked for.
SMALLEST, LARGEST = 4, 4096

Goal = Annotated[
    str,
    typer.Option(
        metavar="SHARE",
        help="Buy runs until the batch recommended is known to lose at most this, .05 "
        "or 5%; --batch-sizes or --seeds run the whole grid instead.",
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Buy no further run after so long."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuyingGoal:
    """What runs are bought for.

    Args:
        regret: To stop at, a share of the least time.
        seconds: No run is bought after so long; None for no bound.
    """

    regret: float
    seconds: float | None


def asked_for(
    context: typer.Context, law: str, regret: str, budget: float | None
) -> BuyingGoal | None:
    """Return what runs are bought for; None where a grid is asked for.

    Args:
        context: Tells which options were given.
        law: The law wanted; one of three parameters needs a grid.
        regret: As written.
        budget: Seconds; None for no bound.

    Returns:
        The goal.

    Raises:
        InputError: The goal is no share between 0 and 1, the budget is not positive,
            or one of them comes with a grid.
    """
    from rightbatch._checks import positive

    grid = [name.replace("_", "-") for name in OF_GRID if _is_given(context, name)]
    if law in OF_THREE_PARAMETERS:
        grid.append(f"law {law}")
    for name in OF_BUYING if grid else ():
        if _is_given(context, name):
            raise InputError(
                f"plan: --{name} has no use with --{grid[0]}, for which the whole grid "
                "is run.",
                "leave one of them out",
            )
    if budget is not None:
        positive("plan", "--budget", budget)
    return None if grid else BuyingGoal(regret=read_share(regret), seconds=budget)


def read_share(text: str) -> float:
    """Return a share that may be written in per cent.

    Args:
        text: ``.05`` or ``5%``.

    Returns:
        The fraction.

    Raises:
        InputError: It is none, or not between 0 and 1.

    Example:
        >>> read_share("5%"), read_share(".05")
        (0.05, 0.05)
    """
    digits = text.strip()
    try:
        share = float(digits.removesuffix("%")) / (100 if digits[-1:] == "%" else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise InputError(
            f"--regret: must be a share between 0 and 1, got {text!r}.",
            "write .05 or 5%",
        )
    return share


def with_candidates(
    request: "SweepRequest", num_examples: int, options: "PlanOptions"
) -> "SweepRequest":
    """Return a request whose batch sizes are those that may be run.

    Args:
        request: The sweep of the plan.
        num_examples: Of the data set.
        options: The largest batch size that may be asked for.

    Returns:
        Powers of two from 4 to 4,096, or to the data set; from 1 where it is small.
    """
    most = min(num_examples, options.max_batch_size or num_examples, LARGEST)
    least = SMALLEST if most >= 8 * SMALLEST else 1
    sizes = tuple(2**i for i in range(13) if least <= 2**i <= most)
    return replace(request, settings=replace(request.settings, batch_sizes=sizes))


def inputs(goal: BuyingGoal | None) -> dict[str, Any]:
    """Return the settings as the JSON document gives them.

    Args:
        goal: None where nothing is bought.

    Returns:
        `regret_goal` and `budget_seconds`.
    """
    known = goal is not None
    return {
        "regret_goal": goal.regret if known else None,
        "budget_seconds": goal.seconds if known else None,
    }


class Market:
    """Where the runs of a plan are bought, and what became of it.

    Args:
        request: The sweep of the plan; its batch sizes are those that may be run.
        options: What to plan for.
        goal: What runs are bought for.
        step_time: Seconds per step.
        served: What can be served, whatever is run.
    """

    def __init__(
        self,
        request: "SweepRequest",
        options: "PlanOptions",
        goal: BuyingGoal,
        step_time: "StepTimeFit",
        served: "BatchLimits",
    ) -> None:
        self._request = request
        self._options = options
        self._goal = goal
        self._step_time = step_time
        self._served = served
        self._bought: BoughtRuns | None = None

    def buy(self, out: Output, store: "RunStore") -> "tuple[Run, ...]":
        """Return the runs bought, each told of as it is paid.

        Args:
            out: Told of them.
            store: Takes them.

        Returns:
            The runs.

        Raises:
            InterruptedRunError: Ctrl-C; says how to go on.
        """
        from rightbatch.experiments.adaptive import Buying, buy_runs

        request, goal = self._request, self._goal
        buying = Buying(
            settings=request.settings,
            buyer=self._buyer(),
            budget_seconds=goal.seconds,
            at_once=request.processes or 1,
            resume=request.resume,
        )
        name, share = request.workload.name, f"{100 * goal.regret:g} %"
        out.note(f"buying runs of {name} until the regret is at most {share} ...")
        try:
            self._bought = buy_runs(
                request.workload if buying.at_once == 1 else request.spec,
                buying,
                store,
                data_dir=request.data_dir,
                on_purchase=lambda bill: out.note(_line(bill)),
            )
        except KeyboardInterrupt:
            raise InterruptedRunError(
                f"interrupted; finished runs are kept in {request.store}.",
                "go on with --resume",
            ) from None
        return self._bought.runs

    @property
    def request(self) -> "SweepRequest":
        """The request, with the batch sizes and seeds that were run."""
        runs = self._paid.runs
        settings = replace(
            self._request.settings,
            batch_sizes=tuple({run.batch_size for run in runs}),
            seeds=tuple({run.seed for run in runs}),
        )
        return replace(self._request, settings=settings)

    @property
    def law(self) -> Any:
        """The law to fit: what was asked for, or the knee that the runs showed."""
        bought = self._paid.bought
        few = len(set(bought.batch_sizes)) < 3
        if few or self._options.law != "auto":
            return self._options.law
        return "knee" if self._known.law == "knee" else "auto"

    @property
    def recommended(self) -> dict[int, int]:
        """The batch sizes that the buying ended on, by number of replicas."""
        if len(set(self._paid.bought.batch_sizes)) < 2:
            return {}
        return {one.num_replicas: one.batch_size for one in self._known.regrets}

    def results(self, findings: "Findings", plan: dict[str, Any]) -> dict[str, Any]:
        """Return what was bought, and the regret of the batch sizes of a plan.

        Args:
            findings: Both curves.
            plan: Results of the plan; its warnings are added to.

        Returns:
            `purchase` and `regret`.
        """
        paid = self._paid
        sizes = [entry["batch_size"] for entry in plan["optimal"]]
        known = self._buyer().assess(paid.bought, sizes)
        stopped = _stopped(paid, findings)
        count, seconds = len(paid.bills), paid.seconds
        end = known.replicas_in_words()
        sentence = f"Regret: {end}, by {count} purchases of {seconds:.3g} s in all."
        if not known.is_met:
            plan["warnings"].append(_unmet(paid, stopped, known.value, self._goal))
        plan["warnings"] += _apart(findings, plan)
        if known.law == "knee":
            plan["warnings"].append(
                "the runs are bent away from the inverse law (by chance in "
                f"{100 * (known.bent_p or 0):.1f} % of cases): laws with a knee were "
                "taken into account"
            )
        regret = {**known.to_dict(), "stopped": stopped, "sentence": sentence}
        return {"purchase": [bill.to_dict() for bill in paid.bills], "regret": regret}

    @property
    def _paid(self) -> "BoughtRuns":
        assert self._bought is not None, "bought before it is asked about"
        return self._bought

    @property
    def _known(self) -> "Assessment":
        return self._buyer().assess(self._paid.bought)

    def _buyer(self) -> "Buyer":
        from rightbatch.training_time.next_run import Buyer

        return Buyer(
            step_time=self._step_time.law,
            candidates=self._request.settings.batch_sizes,
            replicas=self._options.replicas,
            limits=self._served,
            goal=self._goal.regret,
        )


def _line(bill: "Bill") -> str:
    rates = f"{len(bill.lrs)} learning rate{'s' if len(bill.lrs) > 1 else ''}"
    said = f"  batch size {bill.batch_size}, seed {bill.seed}, {rates}: "
    said += f"{bill.seconds:.3g} s"
    if bill.regret is not None:
        said += f"; regret at most {100 * bill.regret:.2g} %"
    return said


def _stopped(paid: "BoughtRuns", findings: "Findings") -> str:
    """Return why no more was bought; ``unsupported`` where the law bears no such batch.

    What buying ended on lies past the runs then, and the plan stops at the largest.
    """
    whole = len(findings.chosen) == len(findings.recommended or {})
    return "unsupported" if paid.stopped == "met" and not whole else paid.stopped


def _apart(findings: "Findings", plan: dict[str, Any]) -> list[str]:
    """Return where the batch of least expected regret is not the fitted law's best."""
    if not findings.chosen:
        return []
    alone = findings.plan(findings.step_time.law, None)
    apart = [
        f"{one.num_replicas} ({entry['batch_size']}, by the law alone {one.batch_size})"
        for one, entry in zip(alone.entries, plan["optimal"], strict=True)
        if not one.within_5_percent[0] <= entry["batch_size"] <= one.within_5_percent[1]
    ]
    if not apart:
        return []
    return [
        f"on {', '.join(apart)} replicas the batch size recommended is the one that "
        "loses least over all laws that the runs allow, not the best of the one fitted"
    ]


def _unmet(paid: "BoughtRuns", stopped: str, value: float, goal: BuyingGoal) -> str:
    why = {
        "budget": "raise --budget",
        "most": f"{len(paid.bills)} purchases did not settle it, so seeds scatter far",
        "unsupported": "the best batch size lies past the largest run; run larger ones "
        "with --batch-sizes",
        "missed": "too many runs miss the target; raise --max-steps",
    }
    way_out = why.get(stopped, "run the grid with --seeds")
    return (
        f"the regret of the batch sizes recommended may be {100 * value:.2g} %, above "
        f"the {100 * goal.regret:g} % asked for: {way_out}"
    )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    # Compared by name, as typer may bring its own click.
    return getattr(source, "name", "") == "COMMANDLINE"
