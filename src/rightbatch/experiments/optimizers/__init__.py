"""The optimizers of Zhang et al. by name, K-FAC, and averages of weights."""
