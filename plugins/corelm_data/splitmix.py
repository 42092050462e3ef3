"""The mixing function of SplitMix64: bits that are as good as random, the same on every machine."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt64


def mixed(values: UInt64[np.ndarray, " *shape"]) -> UInt64[np.ndarray, " *shape"]:
    """Scatter 64 bits, one to one: its finaliser (Steele, Lea & Flood, 2014, doi:10.1145/2660193.2660195)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scattered: UInt64[np.ndarray, " *shape"] = values ^ (values >> np.uint64(31))
    return scattered
