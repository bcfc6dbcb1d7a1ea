"""Gradients computed by the workers of a Dask cluster, as many as the batch asks for.

===============  =================================================================
``workers``      :class:`Workers`: how many a batch is shared by; the cluster follows
``gradients``    :class:`DaskGradients`: an update's gradient, wherever it is computed
``held``         what a worker keeps of a run, and how it computes a forward pass
``packing``      tensors as one array of bytes, and back
===============  =================================================================
"""

from importlib.util import find_spec

from rightbatch.errors import InputError

if find_spec("distributed") is None:
    raise InputError(
        "rightbatch.integrations.dask: dask's `distributed` is not installed.",
        "pip install 'rightbatch[dask]'",
    )

from rightbatch.integrations.dask.gradients import DaskGradients, Share, Work
from rightbatch.integrations.dask.workers import Workers

__all__ = ["DaskGradients", "Share", "Work", "Workers"]
