"""Dropout: random masks, equal bit by bit on every engine and device, and their product with a layer.

The random numbers are a hash of a counter. The counter of an element is `index + key`: the index is fixed for
its place, and the key, one number, advances from step to step. So a step needs nothing from the host.
"""

from __future__ import annotations

from typing import Any

Array = Any


def hash_bits(xp: Any, index: Array, key: Array, bits: Array, spare: Array) -> None:
    """bits = hash(index + key): 32 random bits an element, of a counter.

    index, bits, spare (n, batch) uint32: constant of the place, receives the hash, scratch.  key (1, 1) uint32.
    All arithmetic is modulo 2^32.
    Source: Wellons, Prospecting for Hash Functions (2018), the function "lowbias32".
    """
    xp.add(index, key, out=bits)
    xp.right_shift(bits, 16, out=spare)
    xp.bitwise_xor(bits, spare, out=bits)
    xp.multiply(bits, 0x7FEB352D, out=bits)
    xp.right_shift(bits, 15, out=spare)
    xp.bitwise_xor(bits, spare, out=bits)
    xp.multiply(bits, 0x846CA68B, out=bits)
    xp.right_shift(bits, 16, out=spare)
    xp.bitwise_xor(bits, spare, out=bits)


def dropout_mask(xp: Any, bits: Array, rate: float, mask: Array) -> None:
    """mask = 2^32 / (2^32 - k) where bits >= k, else 0, k = int(2^32 rate): each element is dropped by chance k / 2^32.

    The factor is 1 / (1 - rate) for the rate rounded to 32 bits (k is 1 or more), so that the mask's mean is 1.
    bits (n, batch) uint32: random.  rate: a Python float, 0 < rate < 1.  mask (n, batch): receives the factors.
    Source: Srivastava et al. (2014), Dropout, in the form that scales during training and not in predictions.
    """
    k = max(int(rate * 2**32), 1)  # below 2^32 for every float below 1
    xp.greater(bits, k - 1, out=mask)
    xp.multiply(mask, 2**32 / (2**32 - k), out=mask)


def apply_mask(xp: Any, X: Array, mask: Array, out: Array) -> None:
    """A = X * mask: dropout, and also its backward, dX = dA * mask.

    X, mask, out (n, batch): values, factors, products; out may be X.
    Source: Srivastava et al. (2014), Dropout, section 4.
    """
    xp.multiply(X, mask, out=out)


def advance_key(xp: Any, key: Array, stride: Any) -> None:
    """key = key + stride: the next step's counters begin where those of this one end.

    key (1, 1) uint32.  stride: a whole number from 0 to 2^32 - 1, or (1, 1) uint32.
    """
    xp.add(key, stride, out=key)


def shifted_key(xp: Any, key: Array, offset: Any, out: Array) -> None:
    """out = key + offset: the counters of a shard of a batch begin where those of the shards before it end.

    key, out (1, 1) uint32.  offset: a whole number from 0 to 2^32 - 1, or (1, 1) uint32.
    """
    xp.add(key, offset, out=out)
