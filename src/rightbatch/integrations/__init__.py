"""The controller in other people's stacks, each in a module of its own.

================  ==================================================================
``sklearn``       estimators with `fit`, `predict` and `score`
``dask``          their gradients, and sweeps, on a Dask cluster
``lightning``     a callback for Lightning's Trainer
``transformers``  a callback for the Hugging Face Trainer
``logging``       numbers of a run to any ``log(dict, step)``
================  ==================================================================

Those that are named after an extra need it: ``pip install 'rightbatch[dask]'``,
``[lightning]``, and ``[hf]`` for transformers.
"""
