"""One step and many: the recursions of every optimizer, in numpy and numba."""
