"""The JSON document of a replay."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rightbatch.cli.train_results import thinned
from rightbatch.fitting import FloatArray
from rightbatch.reporting.formats import count, whole
from rightbatch.simulation import Replay
from rightbatch.simulation.trace import as_count

if TYPE_CHECKING:
    from rightbatch.simulation import Trace

NUM_POINTS = 10


def replay_results(replays: Mapping[str, Replay]) -> dict[str, Any]:
    """Return the results of a replay under their stable keys.

    Args:
        replays: By the policies' texts, at least one, of one trace with updates.

    Returns:
        `open_loop`, `trace` of the first policy, `summary`, `recorded`, `replays`,
        `warnings`, `sentence`.
    """
    first = next(iter(replays.values()))
    trace = first.trace
    found = [
        {
            "policy": name,
            **asked_for(trace, one.batch_sizes),
            "batch_sizes": [as_count(size) for size in one.batch_sizes],
        }
        for name, one in replays.items()
    ]
    recorded = asked_for(trace, trace.batch_sizes)
    # A trace with gaps holds fewer rows than updates were made.
    recorded["steps"] = as_count(trace.steps[-1])
    known = trace.losses[np.isfinite(trace.losses)]
    return {
        "open_loop": True,
        "trace": first.to_dict()["trace"],
        "summary": {
            "steps": found[0]["steps"],
            "examples": as_count(trace.examples[-1]),
            "seconds": None,
            "loss": float(known[-1]) if known.size else None,
        },
        "recorded": {**recorded, "noise": _noise(trace)},
        "replays": found,
        "warnings": _warnings(trace),
        "sentence": _sentence(found, recorded),
    }


def asked_for(trace: "Trace", sizes: FloatArray) -> dict[str, Any]:
    """Return batch sizes along a trace: their ends, a curve, a few points, updates.

    Args:
        trace: The recorded run.
        sizes: Asked for, one per row.

    Returns:
        The entry; its `steps` are the updates that the examples of the run make in
        batches of these sizes.
    """
    taken = np.diff(trace.examples, prepend=0.0)
    curve = sorted(thinned(len(sizes), sizes.tolist()))
    last = len(sizes) - 1
    # Few updates are evaluated; the loss of a batch tells where the others are.
    losses = trace.losses
    batch_losses = trace.measurements.get("batch_loss")
    if batch_losses is not None:
        losses = np.where(np.isfinite(losses), losses, batch_losses)
    points = sorted({round(i * last / (NUM_POINTS - 1)) for i in range(NUM_POINTS)})
    return {
        "first": float(sizes[0]),
        "last": float(sizes[-1]),
        "smallest": float(sizes.min()),
        "largest": float(sizes.max()),
        "steps": float((taken / sizes).sum()),
        "curve": {
            "examples": trace.examples[curve].tolist(),
            "batch_size": sizes[curve].tolist(),
        },
        "points": [
            {
                "step": as_count(trace.steps[i]),
                "examples": as_count(trace.examples[i]),
                "loss": as_count(losses[i]),
                "batch_size": float(sizes[i]),
            }
            for i in points
        ],
    }


def _noise(trace: "Trace") -> dict[str, Any] | None:
    noise = trace.measurements.get("noise_scale")
    if noise is None:
        return None
    places = np.array(sorted(thinned(len(noise), noise.tolist())))
    kept = places[np.isfinite(noise[places])]
    return {
        "examples": trace.examples[kept].tolist(),
        "batch_size": noise[kept].tolist(),
    }


def _warnings(trace: "Trace") -> list[str]:
    said: list[str] = []
    gaps = np.diff(trace.steps, prepend=0.0) > 1
    if gaps.any():
        said.append(
            f"the trace has gaps: {len(trace)} rows of {count(trace.steps[-1])} "
            "updates; a policy is asked once per row"
        )
    if not np.isfinite(trace.losses).any():
        said.append("the trace has no losses: a policy that looks at them sees none")
    return said


def _sentence(found: list[dict[str, Any]], recorded: Mapping[str, Any]) -> str:
    parts = [
        f"{one['policy']} would have asked for {whole(one['smallest'])} to "
        f"{whole(one['largest'])} examples and made {whole(one['steps'])} updates"
        for one in found
    ]
    return (
        f"On the examples of the recorded run, which took {whole(recorded['steps'])} "
        f"updates, {'; '.join(parts)}. The loop is open: what would have become of the "
        "loss at these batches, a replay does not tell."
    )
