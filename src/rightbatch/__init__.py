"""rightbatch finds the mini-batch size that reaches your target soonest."""

__version__ = "0.1.0"
