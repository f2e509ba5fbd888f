"""Runs lines of the command line on a machine whose clock shows another time; started by ``scene.Later``.

Each line of standard input is ``{"folder": …, "seconds": …, "line": …}``: where it is typed, how far this machine's
clock is ahead of the true one, and what is typed. The clock is put in before stanch is imported, so that every part
of it reads this one.
"""

import contextlib
import datetime as dt
import io
import json
import os
import shlex
import sys
import time
from types import MappingProxyType

_true, _ahead = time.time, 0.0


class Datetime(dt.datetime):
    """Dates as this machine has them."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)


time.time = lambda: _true() + _ahead
dt.datetime = Datetime

from stanch.cli.frame import run  # noqa: E402 - after the clock
from stanch.crypto import passphrase  # noqa: E402 - same

passphrase._COSTS = MappingProxyType({"t": (1, 16), "m_kib": (1024, 1 << 20), "p": (1, 16)})

for text in sys.stdin:
    asked = json.loads(text)
    _ahead = asked["seconds"]
    os.chdir(asked["folder"])
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(shlex.split(asked["line"]))
    sys.stdout.write(json.dumps([code, out.getvalue(), err.getvalue()]) + "\n")
    sys.stdout.flush()
