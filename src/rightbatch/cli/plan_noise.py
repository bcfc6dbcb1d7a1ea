"""A plan whose phi is a noise scale: relative times, and the ends of a band.

The time to a target is S(B) T(B, P) with S proportional to 1 + phi/B. Where phi is a
noise scale instead of a fit, S_min is not known: the best batch size does not depend on
it, and times are known relative to one another alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rightbatch.fitting import Interval

if TYPE_CHECKING:
    from rightbatch.training_time import BatchLimits, PlanEntry, StepTimeModel

# Noise scale over critical batch size, where both were measured: from .05 (an
# autoencoder, a VAE) to 8 (SVHN). McCandlish et al. (2018), table 1, as transcribed.
BAND = (1 / 8, 20.0)
# What only a law with an S_min tells.
_UNKNOWN = (
    "steps",
    "steps_interval",
    "seconds",
    "seconds_interval",
    "batch_size_with_idle",
    "seconds_with_idle",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisePlan:
    """Both curves of a plan from a noise scale.

    Args:
        workload: Its name.
        phi: In examples, the factor in it, as far as it is known.
        is_bound: Whether phi is known from below alone.
        law: Of step times, or the measured times.
        limits: What can be served.
        replicas: Numbers of replicas, ascending.
    """

    workload: str
    phi: Interval
    is_bound: bool
    law: "StepTimeModel"
    limits: "BatchLimits"
    replicas: tuple[int, ...]

    def entries(self, phi: float) -> "list[PlanEntry]":
        """Return the best batch for each number of replicas, for one phi."""
        from rightbatch.training_time import plan_batch_size

        law = self._law(phi)
        return [plan_batch_size(law, p, limits=self.limits) for p in self.replicas]

    def time_lost(self, phi: float, entries: "list[PlanEntry]") -> list[float]:
        """Return what training at the entries' batch sizes loses if phi is another."""
        law, best = self._law(phi), self.entries(phi)
        return [
            law.seconds_as_served(one.batch_size, one.num_replicas, self.limits)
            / other.seconds
            - 1
            for one, other in zip(entries, best, strict=True)
        ]

    def best(self) -> list[dict[str, Any]]:
        """Return the entries of the plan, with nothing in them that needs S_min."""
        value, low, high = (
            [None] * len(self.replicas) if phi is None else self.entries(phi)
            for phi in (self.phi.value, self.phi.low, self.phi.high)
        )
        return [
            self._told(entry, smaller, larger)
            for entry, smaller, larger in zip(value, low, high, strict=True)
            if entry is not None
        ]

    def _told(
        self, entry: "PlanEntry", low: "PlanEntry | None", high: "PlanEntry | None"
    ) -> dict[str, Any]:
        # The best batch grows with phi: the ends of one are the ends of the other. What
        # is cut off at the largest batch allowed has no upper end.
        cut = high is not None and high.limited_by == "dataset"
        size = Interval(
            value=entry.batch_size,
            low=low and low.batch_size,
            high=None if high is None or cut else high.batch_size,
            level=self.phi.level,
            unit="examples",
            definition="best batch size, from the noise scale's interval alone",
        )
        return {
            **entry.to_dict(),
            **dict.fromkeys(_UNKNOWN),
            "batch_size_interval": size.to_dict(),
            "batch_size_is_lower_bound": self.is_bound,
        }

    def _law(self, phi: float) -> Any:
        from rightbatch.convergence import ConvergenceLaw
        from rightbatch.training_time import TrainingTimeLaw

        # The fixed cost of a step is part of the law of step times, on one replica too.
        steps = ConvergenceLaw(min_steps=1.0, min_examples=phi)
        return TrainingTimeLaw(steps=steps, step_time=self.law)


def noise_plan_results(
    quick: NoisePlan, noise: Mapping[str, Any], factor: float | None
) -> dict[str, Any]:
    """Return the results of such a plan under the stable keys of a plan.

    Args:
        quick: Both curves.
        noise: The results of the measurement.
        factor: Calibrated, and in phi already; None where it is not.

    Returns:
        `optimal` without steps and seconds to a target, `noise_scale`, `band`,
        `warnings`, `sentence`, and the rest of a plan, empty.
    """
    phi = quick.phi
    value = phi.value or 0.0
    best = quick.entries(value)
    calibrated = factor is not None
    ends = (phi.low, phi.high)
    band = ends if calibrated else (BAND[0] * value, BAND[1] * value)
    label = f"calibrated factor {factor:g}" if calibrated else "uncalibrated"
    said = [] if calibrated else list(noise["warnings"])
    if calibrated:
        said = [
            *noise["warnings"][1:],
            f"the factor {factor:g} is taken as exact, and as that of this "
            "workload at this learning rate",
        ]
    if quick.is_bound:
        said.append(
            "the noise scale is known from below alone: so are the best batches"
        )
    said += [*_served_warnings(best), "no learning rate is planned for these batches"]
    at_ends = {
        name: _band_entry(quick, end, best)
        for name, end in zip(("low", "high"), band, strict=True)
    }
    return {
        "optimal": quick.best(),
        "optimal_measured": [],
        "convergence": [],
        "comparisons": [],
        "runs": [],
        "verification": [],
        "limits": quick.limits.to_dict(),
        "noise_scale": {
            "phi": phi.to_dict(),
            "label": label,
            "factor": factor,
            "simple_noise_scale": noise["run_average"],
            "is_lower_bound": quick.is_bound,
        },
        "band": {**at_ends, "source": "McCandlish et al. (2018), table 1"},
        "warnings": list(dict.fromkeys(said)),
        "sentence": _sentence(best[0], phi, label, at_ends),
    }


def _band_entry(
    quick: NoisePlan, phi: float | None, best: "list[PlanEntry]"
) -> dict[str, Any] | None:
    if not phi:
        return None
    lost = quick.time_lost(phi, best)
    return {
        "phi": phi,
        "optimal": [
            {
                "num_replicas": entry.num_replicas,
                "batch_size": entry.batch_size,
                "within_5_percent": list(entry.within_5_percent),
                "limited_by": entry.limited_by,
                "time_lost": float(share),
            }
            for entry, share in zip(quick.entries(phi), lost, strict=True)
        ],
    }


def _served_warnings(best: "list[PlanEntry]") -> list[str]:
    said = [text for entry in best for text in entry.warnings]
    slower = [entry.num_replicas for entry in best if entry.speedup < 1]
    if slower:
        listed = ", ".join(str(count) for count in slower)
        said.append(
            f"{listed} replicas are slower than 1: what they spend on each other "
            "outweighs what they save"
        )
    return said


def _sentence(
    first: "PlanEntry", phi: Interval, label: str, band: Mapping[str, Any]
) -> str:
    from rightbatch.reporting.formats import number, percent, replicas_text

    low, high = first.within_5_percent
    said = (
        f"Train at {first.batch_size} on {replicas_text(first.num_replicas)}, from a "
        f"noise scale: phi {number(phi.value)}, {label}. {low} to {high} are within "
        "5 % of the best time by it."
    )
    for name in ("low", "high"):
        if band[name] is not None:
            one = band[name]["optimal"][0]
            said += (
                f" If phi is {number(band[name]['phi'])}, {one['batch_size']} is best, "
                f"and {first.batch_size} loses {percent(one['time_lost'])}."
            )
    return said
