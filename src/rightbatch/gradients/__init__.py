"""Gradient noise measured in a training loop: :class:`NoiseMeter` and what it shows."""

from rightbatch.gradients.meter import NoiseMeter
from rightbatch.gradients.parts import optimizer_parts
from rightbatch.gradients.reading import NoiseReading

__all__ = ["NoiseMeter", "NoiseReading", "optimizer_parts"]
