"""Experiments: workloads, sweeps to a target, the store of runs, data readers."""
