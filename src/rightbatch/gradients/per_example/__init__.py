"""Norms of single examples' gradients, layer by layer, in the normal backward pass."""
