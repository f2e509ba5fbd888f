"""Run the command line as a process that ends with whoever started it: ``python -m stanch.cli.attended …``.

Whoever started it holds the other end of its standard input and writes nothing. That end is closed by the system when
the holder ends, also by ``kill -9``; then this process is told to end, and has as long as any part to let its answers
out. No part is left that serves without anybody who would end it.
"""

import os
import signal
import threading
import time

from stanch.cli.frame import main

DRAIN_SECONDS = 35.0
"""How long a part has to end once it is told to."""


def end_with_input(handle: int = 0, *, seconds: float = DRAIN_SECONDS) -> None:
    """Wait until the pipe ends, then tell this process to end, and kill it if it does not in time."""
    while os.read(handle, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what has nothing to renew goes on
    threading.Thread(target=end_with_input, daemon=True).start()
    main()
