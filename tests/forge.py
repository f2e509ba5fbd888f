"""Runs stanch commands as processes of their own that need not import everything first.

To start Python and import stanch takes longer than most commands. So one process imports it, and forks for each
command: the child has the command's own arguments, folder, environment and output.
"""

import atexit
import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path


class Forge:
    """A process that forks; as a context manager it ends with its block."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}  # a library's own threads would not outlive a fork
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def run(self, words, *, cwd, env):
        """Run ``stanch WORDS`` and return what ``subprocess.run`` would."""
        with tempfile.TemporaryDirectory() as folder:
            outputs = [str(Path(folder, name)) for name in ("stdout", "stderr")]
            order = {"words": list(words), "cwd": str(cwd), "env": dict(env), "outputs": outputs}
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            stdout, stderr = (Path(path).read_text() for path in outputs)
        return subprocess.CompletedProcess(["stanch", *words], code, stdout, stderr)


def _become(order):
    """Take the place of a process that was started for a command."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    for stream, place in zip((1, 2), order["outputs"], strict=True):
        opened = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, stream)
        os.close(opened)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["stanch", *order["words"]]


def _serve():
    """Fork for each order; return in the child, and end when there are no more orders."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(json.loads(line))
            return
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
    os._exit(0)


def _end(main):
    """Run a command and end as an interpreter does, but for tearing down what the process that forked still uses."""
    try:
        main()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    import importlib
    import pkgutil

    import stanch.cli
    import stanch.workspace

    for package in (stanch.cli, stanch.workspace):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            with contextlib.suppress(ImportError):  # of a part that is not installed
                importlib.import_module(module.name)
    gc.freeze()  # a child that walked everything would copy it
    _serve()
    _end(stanch.cli.main)
