"""Box–Muller: normal values from words, in torch, or in one loop where numba is installed (extra ``fast``).

The loop takes a quarter of the time; its polynomials for logarithm, sine and cosine interpolate at the Chebyshev nodes,
with an error below half a unit in the last place. The values of both ways differ by less than 2^-49 of the radius.

Compiled code lives in the process alone, because numba's cache on a disk is pickled code, and whoever can write to it
can run what he likes as the next user. So each process compiles for itself, and only once it has made :data:`WORTH`
pairs without: one that trains an adapter seldom imports numba.
"""

import math
import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]
Loop = Callable[[Words, Words, float, Floats, Floats], None]
"""``(radii, angles, factor, cosines, sines)``: adds √(factor·ln u) times cosine and sine of 2π·v."""

WORTH = 1 << 27
"""Pairs after which compiling takes less time than it saves on as many more."""

_LOW_BITS, _FRACTION_BITS = np.uint64(12), np.uint64(52)
_FRACTION = np.uint64((1 << 52) - 1)
_ONE, _ROOT = np.array([1.0, math.sqrt(0.5)]).view(np.uint64)
_ROOT_TO_ONE = _ONE - _ROOT
_WHOLE = np.float64(2.0**52).view(np.uint64)  # with a small integer as its fraction: 2^52 plus that integer
_BIAS = 2.0**52 + 1023
_GAP = 1 - 2.0**-53
_LN2 = math.log(2)

# (ln((1+s)/(1-s)) - 2s)/s³ by powers of s², for (1+s)/(1-s) from √½ to √2.
_L0, _L1, _L2, _L3 = 0.666666666666667, 0.3999999999989889, 0.28571428628253836, 0.22222211089379493
_L4, _L5, _L6 = 0.18182892432537032, 0.15331611722050653, 0.14617807153462828
# sin(πf/2)/f and cos(πf/2) by powers of f², for f from -½ to ½.
_S0, _S1, _S2, _S3 = 1.5707963267948966, -0.6459640975062443, 0.07969262624604301, -0.004681754132340976
_S4, _S5, _S6 = 0.0001604411507421909, -3.5986433529823095e-06, 5.6339337815378516e-08
_C0, _C1, _C2, _C3 = 1.0, -1.2337005501361513, 0.25366950789986475, -0.02086348073494657
_C4, _C5, _C6 = 0.000919259950041661, -2.520013526428479e-05, 4.6552961874867623e-07


class Compiler:
    """Counts the pairs that were made without the loop, and compiles it when that is worth it."""

    def __init__(self, worth: int) -> None:
        self._left = worth
        self._first = threading.Lock()
        self._loop: Loop | None = None

    def loop(self, count: int) -> Loop | None:
        """Return the loop for ``count`` pairs more; None where torch is to do it: few so far, or no numba.

        One thread compiles, once; others go on in torch meanwhile.
        """
        self._left -= count
        if self._loop is None and self._left < 0 and self._first.acquire(blocking=False):
            self._loop = compile_loop()
        return self._loop


COMPILER = Compiler(WORTH)


def add_normals(words: Words, total: Floats, square: float, room: Floats) -> None:
    """Add normal values of variance ``square`` to ``total``; ``words`` and ``room``, of its length, are overwritten.

    Of 2h words come r·cos θ, then r·sin θ, with r = √(-2·square·ln u) of the first h and θ = 2π·u of the others.
    u = ((w >> 12) + 1/2)·2^-52 is exact in float64 and is never 0 or 1.
    """
    half = len(words) // 2
    loop = COMPILER.loop(half)
    if loop is None:
        _draw_into(words, room, square)
        total += room
    else:
        loop(words[:half], words[half:], -2.0 * square, total[:half], total[half:])


def compile_loop() -> Loop | None:
    """Compile for this process and processor; None where numba is missing."""
    try:
        from numba import njit, types  # noqa: PLC0415 - an extra, and half a second
    except ImportError:
        return None

    words, floats = types.Array(types.uint64, 1, "C"), types.Array(types.float64, 1, "C")
    signature = types.void(words, words, types.float64, floats, floats)
    loop: Loop = njit(signature, nogil=True, error_model="numpy")(_add_each)
    return loop


def _draw_into(words: Words, values: Floats, square: float) -> None:
    # numpy's functions of float64 take two to three times as long on processors without AVX-512, its square root half.
    import torch  # noqa: PLC0415 - noise is drawn where a model is trained; the plan is read without torch

    # The upper 52 bits are made the fraction of a float in [1, 2), which is quicker than to convert them.
    np.right_shift(words, _LOW_BITS, out=words)
    np.bitwise_or(words, _ONE, out=words)
    uniform: Floats = words.view("<f8")
    uniform -= _GAP
    half = len(words) // 2
    radius, angle = uniform[:half], uniform[half:]
    torch.from_numpy(radius).log_()
    radius *= -2.0 * square
    np.sqrt(radius, out=radius)
    angle *= 2.0 * math.pi
    turns = torch.from_numpy(angle)
    torch.cos(turns, out=torch.from_numpy(values[:half]))
    torch.sin(turns, out=torch.from_numpy(values[half:]))
    values.reshape(2, half)[:] *= radius


def _add_each(radii: Words, angles: Words, factor: float, cosines: Floats, sines: Floats) -> None:
    for place in range(radii.size):
        # u = fraction·2^exponent, with the fraction from √½ to √2; its logarithm by that of (1+s)/(1-s).
        uniform = np.uint64((radii[place] >> _LOW_BITS) | _ONE).view(np.float64) - _GAP
        bits = np.float64(uniform).view(np.uint64) + _ROOT_TO_ONE
        exponent = np.uint64((bits >> _FRACTION_BITS) | _WHOLE).view(np.float64) - _BIAS
        fraction = np.uint64((bits & _FRACTION) + _ROOT).view(np.float64)
        s = (fraction - 1.0) / (fraction + 1.0)
        z = s * s
        log = _L0 + z * (_L1 + z * (_L2 + z * (_L3 + z * (_L4 + z * (_L5 + z * _L6)))))
        radius = math.sqrt((exponent * _LN2 + s * (2.0 + z * log)) * factor)
        # The angle in quarter turns: whole ones swap sine and cosine and change their signs.
        f = (np.uint64((angles[place] >> _LOW_BITS) | _ONE).view(np.float64) - _GAP) * 4.0
        turns = np.rint(f)
        f -= turns
        y = f * f
        sine = radius * f * (_S0 + y * (_S1 + y * (_S2 + y * (_S3 + y * (_S4 + y * (_S5 + y * _S6))))))
        cosine = radius * (_C0 + y * (_C1 + y * (_C2 + y * (_C3 + y * (_C4 + y * (_C5 + y * _C6))))))
        if (turns == 1.0) | (turns == 3.0):
            cosine, sine = sine, cosine
        cosines[place] += -cosine if (turns == 1.0) | (turns == 2.0) else cosine
        sines[place] += -sine if (turns == 2.0) | (turns == 3.0) else sine
