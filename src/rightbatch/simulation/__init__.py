"""Any policy driven on a noisy quadratic, or asked about a recorded run."""

from rightbatch.simulation.conditions import Conditions
from rightbatch.simulation.drive import Simulation, simulate
from rightbatch.simulation.reading import read_trace
from rightbatch.simulation.replay import Replay, replay
from rightbatch.simulation.trace import Passage, Trace

__all__ = [
    "Conditions",
    "Passage",
    "Replay",
    "Simulation",
    "Trace",
    "read_trace",
    "replay",
    "simulate",
]
