"""Runs what a person types and compares what the terminal shows.

A transcript holds ``$ command``, the expected standard output, ``! `` before lines of standard error, and ``= N`` for
an exit code other than 0. ``<hex> <time> <id> <n> <path>`` stand for values that change; a line ``…`` stands for any
lines. A here-document ``$ cat > FILE <<END`` writes a file.
"""

import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

PLACEHOLDERS = {
    "<hex>": r"[0-9a-f]+",
    "<time>": r"\d{4}-\d\d-\d\d[T ][0-9:.]+Z?",
    "<id>": r"[A-Za-z0-9_:+/=.-]+",
    "<n>": r"[-+]?[0-9][0-9,.e+-]*",
    "<path>": r"\S+",
}
ANY = "…"


@dataclass
class Step:
    command: str
    document: list[str] = field(default_factory=list)
    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    exit: int = 0


def read_steps(text):
    """Return the steps of a transcript."""
    steps, end = [], None
    for line in text.splitlines():
        if end is not None:
            if line == end:
                end = None
            else:
                steps[-1].document.append(line)
        elif line.startswith("$ "):
            steps.append(Step(line[2:]))
            if found := re.search(r"<<'?(\w+)'?$", line):
                end = found[1]
        elif line.startswith("! "):
            steps[-1].stderr.append(line[2:])
        elif re.fullmatch(r"= \d+", line):
            steps[-1].exit = int(line[2:])
        elif steps and (line or steps[-1].stdout):
            steps[-1].stdout.append(line)
    return steps


def matches(expected, found):
    """Tell whether the found lines are the expected ones, placeholders and ``…`` considered."""
    expected = [line.rstrip() for line in expected]
    while expected and not expected[-1]:
        expected.pop()
    pattern = ""
    for line in expected:
        if line == ANY:
            pattern += r"(?:.*\n)*"
            continue
        escaped = re.escape(line)
        for name, regex in PLACEHOLDERS.items():
            escaped = escaped.replace(re.escape(name), regex)
        pattern += escaped + r"[ ]*\n"
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in found)) is not None


def run_step(forge, step, folder, environment):
    """Run one step in ``folder`` and assert what it shows."""
    words = shlex.split(re.sub(r"\s*<<'?\w+'?$", "", step.command))
    if words[:2] == ["cat", ">"]:
        (folder / words[2]).write_text("\n".join(step.document) + "\n")
        return
    if words[0] == "stanch":
        process = forge.run(words[1:], cwd=folder, env=environment)
    else:
        process = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    shown = f"$ {step.command}\n{process.stdout}\n! {process.stderr}\n= {process.returncode}"
    assert process.returncode == step.exit, shown
    assert matches(step.stdout, process.stdout.splitlines()), shown
    if step.stderr:
        assert matches(step.stderr, process.stderr.splitlines()), shown


def blocks(document: Path):
    """Return the ``console`` blocks of a Markdown document, joined into one transcript."""
    return "\n".join(re.findall(r"^```console\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL))
