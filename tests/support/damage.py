"""Bytes of a file damaged at random, for tests of its readers."""

from __future__ import annotations

import numpy as np

MEMORY_LIMIT_BYTES = 64 << 20  # of a reader, whatever its file says


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """Bits flipped, bytes overwritten, or a piece cut out, repeated or cut off."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(changed))) if changed else 0
        match int(rng.integers(6)):
            case 0:
                if changed:
                    changed[at] ^= 1 << int(rng.integers(8))
            case 1:
                changed[at : at + 4] = rng.bytes(4)
            case 2:
                changed[at : at + 8] = [b"\xff" * 8, b"\0" * 8, b"\0\0\0\x80" * 2][int(rng.integers(3))]
            case 3:
                del changed[at : at + int(rng.integers(1, 40))]
            case 4:
                changed[at:at] = changed[at : at + int(rng.integers(1, 40))]
            case 5:
                if rng.random() < 0.3:
                    del changed[at:]
                else:  # numbers in headers and texts
                    changed[at : at + 1] = [b"9" * 9, b"-", b"e99", b"."][int(rng.integers(4))]
    return bytes(changed)
