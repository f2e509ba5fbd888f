"""Every page of the console and every answer of its API over a busy workspace, and how fast the watch follows a log.

    python benchmarks/bench_console.py [--postgresql] [--entries 100000] [--principals 10000]

100,000 entries of mixed kinds, half of them in 28 days and half within the hour, 10,000 principals, 400 alerts, 36
incidents, 36 models and 36 releases. Each address is asked in this process, as a browser asks and as a program does;
what is measured is the time until the whole answer is there, with the record of the look durable, and beside it the CPU
time, which a busy machine does not stretch. Ingest is the whole path: one process encodes and appends entries while
another reads them back and lets all detectors look; the rate is over the time until the last was looked at; beside it
stands what each process takes in a second of its CPU. `ingest` is that of the hour, over what detectors remember of 28
days; `history` that of the 28 days in one go, in which every principal is judged at the end of each of 672 hours.

Writes benchmarks/results/console.json (PostgreSQL: console-postgresql.json). Exit code 1 if the median of a page is
over 300 ms, or fewer than 5,000 entries a second were taken in.
"""

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the workspace is made as the tests make theirs
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "workspace"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "console"))

import crowd
import life
from seating import ADDRESS, trace_something

import servers
from stanch.access import ApiKeyOrder, PolicyVersions, Session
from stanch.console.app import Console, build_app
from stanch.console.route import API, Route
from stanch.console.routes import PAGES
from stanch.watch import detectors
from stanch.watch.runner import progress, run
from stanch.workspace import Workspace
from stanch.workspace.verbs_access import Newcomer, issue_key, register_newcomer
from stanch.workspace.verbs_approve import register_key
from stanch.workspace.verbs_model import pass_gate
from stanch.workspace.verbs_policy import show_policies
from stanch.workspace.verbs_release import propose_release
from stanch.workspace.watcher import Watcher

RESULTS = Path(__file__).parent / "results"
ROUNDS, DAYS, ALERTS, INCIDENTS, RELEASES = 5, 28, 400, 36, 36
PROCESS = multiprocessing.get_context("spawn")
MOST_MS, LEAST_A_SECOND = 300.0, 5000.0
READS = ("case:read", "finding:read", "log:read", "policy:read")
MORE = {
    "alerts": ("?state=open&limit=200",),
    "access.why": ("?action=model:infer", "?action=model:infer&who=person%2077"),
    "access.who": ("?action=model:infer",),
    "log": ("?kind=gateway.infer", "?principal=person%2077", "?phase=denied", "?since=2020-01-01&limit=200"),
    "principals": ("?limit=200",),
    "budgets": ("?limit=200",),
}
"""What is asked beside the bare address."""
FORMS = {
    "log.verify": {},
    "policies.check": {"text": None},
    "incident.export": {},
    "alert.move": {"to": "investigating"},
    "alerts.suppress": {"detector": "D2", "principal": "person 78", "until": None, "reason": "a load test"},
}
"""Forms that are sent, too, by those who may."""
NOBODY = '\n@id("nobody") forbid (principal, action == Stanch::Action::"model:infer", resource);\n'
"""A change under which each request to a model of the week comes out otherwise."""
WHOLE_LOG = {"log.verify": "recomputes the whole log: its time grows with it"}
"""Routes without a limit, and why."""


@dataclass(frozen=True)
class Busy:
    """A workspace full of things, and the ids of some of them."""

    case: life.Case
    names: list[str]
    history: dict[str, float]
    ingest: dict[str, float]


def make_busy(folder: Path, tables: str, entries: int, principals: int) -> Busy:
    """Make the workspace; its history is made by one process while another watches."""
    material, now = life.make_material(folder / "material"), time.time()
    where, since = folder / "w", now - DAYS * 86_400
    where.mkdir()
    place = f'[workspace]\ntables = "{tables}"\n\n' if tables else ""
    origin = '[ledger]\norigin = "example.com/busy"\n\n[access]\nprofile = "team"\n'
    (where / "stanch.toml").write_text(place + origin)
    word = life.passphrase()
    with Workspace.init(where, profile="team", owner="olga", passphrase=word, clock=lambda: since) as workspace:
        show_policies(workspace)  # whoever acts first made the workspace: the crowd comes after that
    case, names = life.Case(where, material, folder / "leakcert.json"), crowd.names_of(principals)
    with case.acting("olga") as workspace:
        crowd.add_crowd(workspace.tables, names, int(now * 1000))
    hour, half = int(now // 3600 * 3_600_000), entries // 2
    history = take_in(case, names, half, int(since * 1000), hour)
    ingest = take_in(case, names, half, hour, int(now * 1000))
    with case.acting("olga") as workspace:
        for name, roles in life.ROLES.items():
            life.bring_person(workspace, name, roles, locked=name in life.LOCKED)
        for name, identity in material.identities.items():
            life.acting_in(workspace, name, register_key, str(identity.recipient))
    with case.acting("dana") as workspace:
        life.certify(material.result, material.model, workspace.keys.signer("publisher"), case.certificate)
        pass_gate(workspace, material.model, case.certificate, life.POLICY)
        propose_release(workspace, case.proposal())
    with case.acting("rolf") as workspace:
        case.create(workspace, folder / "copy", recipient="bolt")
    trace_something(case, folder)
    crowd.add_releases(case, RELEASES)
    crowd.add_findings(case, names, ALERTS, INCIDENTS)
    return Busy(case, names, history, ingest)


def append(case: life.Case, history: tuple[list[str], int, int, int], ready: Barrier, results: "Queue[float]") -> None:
    """Append the history, in a process of its own, when both are ready; report the CPU time."""
    made = list(crowd.make_history(*history))
    with life.cheaply(), case.acting("olga") as workspace:
        ready.wait()
        began = time.process_time()
        crowd.append(workspace.ledger, made)
        results.put(time.process_time() - began)


def take_in(case: life.Case, names: list[str], count: int, since_ms: int, until_ms: int) -> dict[str, float]:
    """Return how many entries a second are made, appended, read back and looked at, by two processes."""
    with case.acting("olga") as workspace:
        known, reader = detectors(), workspace.ledger.reader()
        watcher = Watcher(workspace, known, lambda: workspace, None, print)  # type: ignore[arg-type]  # never run
        end = reader.size() + count
        ready, results = PROCESS.Barrier(2), PROCESS.Queue()
        history = (names, count, since_ms, until_ms)
        writer = PROCESS.Process(target=append, args=(case, history, ready, results))
        writer.start()
        ready.wait()
        began, cpu = time.perf_counter(), time.process_time()

        def wait(seconds: float) -> bool:
            if progress(workspace.tables, reader.origin, known)[0].next_index >= end:
                return True
            time.sleep(seconds)
            return False

        run(reader, workspace.tables, known, deliver=watcher.deliver, wait=wait)
        seconds, watched = time.perf_counter() - began, time.process_time() - cpu
        written = results.get()
        writer.join()
    return {
        "entries": count, "entries_a_second": count / seconds, "entries_a_cpu_second_appended": count / written,
        "entries_a_cpu_second_watched": count / watched,
    }  # fmt: skip


class Visitor:
    """Asks a console as a browser of somebody, and as a program with a key."""

    def __init__(self, app: Console, workspace: Workspace) -> None:
        self.app, self.workspace = app, workspace
        transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 50000))  # type: ignore[arg-type]  # it is one
        self.client = httpx.AsyncClient(transport=transport, base_url=ADDRESS)
        bot = register_newcomer(workspace, Newcomer(name="bot", kind="service", roles=("auditor",)))
        order = ApiKeyOrder(principal=bot, models=("workspace",), networks=("127.0.0.0/8",), actions=READS)
        self.key = issue_key(workspace, order)[1].text

    async def look(self, path: str, who: str) -> tuple[float, float]:
        """Ask for a page; return milliseconds on the wall and of CPU."""
        if path.startswith(API):
            headers = {"Authorization": f"Bearer {self.key}"}
        else:
            headers = {"Cookie": f"stanch={self._seat(who)[0]}"}
        return await self._timed("GET", path, headers, None)

    async def send(self, route: Route, path: str, who: str, fields: dict[str, str]) -> tuple[float, float]:
        """Send a form."""
        cookie, key_id = self._seat(who)
        headers = {"Cookie": f"stanch={cookie}", "Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"}
        form = {"_token": self.app.desk.csrf.token(key_id, route.key), **fields}
        return await self._timed("POST", path, headers, form)

    async def _timed(
        self, method: str, path: str, headers: dict[str, str], form: dict[str, str] | None
    ) -> tuple[float, float]:
        began, cpu = time.perf_counter(), time.process_time()
        answer = await self.client.request(method, path, headers=headers, data=form)
        taken = 1000 * (time.perf_counter() - began), 1000 * (time.process_time() - cpu)
        if answer.status_code not in {200, 303} or answer.headers.get("location", "").startswith("/login"):
            raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text[-500:]}")
        return taken

    def _seat(self, who: str) -> tuple[str, str]:
        now_ms = int(self.workspace.door.clock() * 1000)
        principal = self.workspace.people.find(who)
        opened = self.app.desk.sessions.open_session(Session(principal, "x", True, now_ms, now_ms + 60_000))
        return opened.cookie, opened.session.key_id


def places(visitor: Visitor, busy: Busy) -> dict[str, str]:
    """Return an object for each part of an address that changes."""
    with visitor.workspace.tables.read() as connection:
        alert = connection.exec_driver_sql("SELECT id FROM alert WHERE state = 'open' ORDER BY id DESC").scalar()
        incident = connection.exec_driver_sql("SELECT id FROM incident ORDER BY id").scalar()
    return {
        "digest": str(crowd.MODELS[0].digest), "name": "r1", "principals": busy.names[70], "alerts": str(alert),
        "case": "theft", "index": str(visitor.workspace.ledger.reader().size() // 2), "incidents": str(incident),
    }  # fmt: skip


def at(route: Route, known: dict[str, str]) -> str:
    """Return an address of a route at which something is."""
    found = known | {"id": known[route.path.split("/")[1]]} if "id" in route.words else known
    return route.path.format(**found)


async def ask_all(visitor: Visitor, busy: Busy, figures: dict[str, list[tuple[float, float]]]) -> None:
    """Ask every address once, in one round."""
    known = places(visitor, busy)
    for route in PAGES:
        if route.method == "GET" and route.how != "live":
            for query in ("", *MORE.get(route.name, ())):
                path = at(route, known) + query
                note(figures, f"GET {route.path}{query}", await visitor.look(path, "ada"))
                if route.for_programs:
                    note(figures, f"GET {API}{route.path}{query}", await visitor.look(API + path, "ada"))
        elif route.name in FORMS:
            who = "olga" if route.name == "policies.check" else "ines"
            fields = fill(FORMS[route.name], visitor.workspace)
            note(figures, route.key, await visitor.send(route, at(route, known), who, fields))


def fill(form: dict[str, str | None], workspace: Workspace) -> dict[str, str]:
    """Return the fields of a form with what depends on the workspace."""
    late = {
        "text": lambda: PolicyVersions(workspace.tables).active().text + NOBODY,
        "until": lambda: time.strftime("%Y-%m-%dT%H:%M", time.gmtime(time.time() + 7 * 86_400)),
    }
    return {name: late[name]() if value is None else value for name, value in form.items()}


def note(figures: dict[str, list[tuple[float, float]]], what: str, taken: tuple[float, float]) -> None:
    """Keep a time."""
    figures.setdefault(what, []).append(taken)


def summary(taken: list[tuple[float, float]]) -> dict[str, object]:
    """Return what is told of an address; the first time counts apart."""
    (first, _), *rounds = taken
    wall = sorted(wall for wall, _ in rounds)
    return {
        "median_ms": statistics.median(wall), "p95_ms": wall[math.ceil(0.95 * len(wall)) - 1], "worst_ms": wall[-1],
        "first_ms": first, "cpu_ms": statistics.median(cpu for _, cpu in rounds),
        "rounds_ms": [wall for wall, _ in rounds],
    }  # fmt: skip


def measure(busy: Busy, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Ask everything so many times, and once before, of a console that is just up."""
    figures: dict[str, list[tuple[float, float]]] = {}
    with busy.case.acting("olga") as workspace:
        visitor = Visitor(build_app(workspace, address=ADDRESS), workspace)

        async def run() -> None:
            visitor.app.prepare()
            for _ in range(1 + rounds):
                await ask_all(visitor, busy, figures)
            await visitor.client.aclose()

        asyncio.run(run())
    return figures


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--principals", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        stack.enter_context(life.cheaply())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tables = ""
        if asked.postgresql:
            tables = stack.enter_context(servers.postgresql_server()).database()
        busy = make_busy(folder, tables, asked.entries, asked.principals)
        for part in (busy.history, busy.ingest):
            print({name: round(value) for name, value in part.items()}, file=sys.stderr, flush=True)
        figures = measure(busy, asked.rounds)
    told = {what: summary(rounds) for what, rounds in figures.items()}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result = {
        "machine": machine, "load": load, "tables": "postgresql" if asked.postgresql else "sqlite",
        "principals": asked.principals, "history": busy.history, "ingest": busy.ingest, "without_limit": WHOLE_LOG,
        "pages": told,
    }  # fmt: skip
    out = asked.out or RESULTS / f"console{'-postgresql' if asked.postgresql else ''}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    for what, figure in sorted(told.items(), key=lambda item: -float(str(item[1]["median_ms"]))):
        print(f"{what:<75} {figure['median_ms']:8.1f} ms, CPU {figure['cpu_ms']:8.1f}, first {figure['first_ms']:8.1f}")
    unlimited = {route.key for route in PAGES if route.name in WHOLE_LOG}
    late = [what for what, figure in told.items() if figure["median_ms"] > MOST_MS and what not in unlimited]  # type: ignore[operator]  # a number
    print(f"over {MOST_MS:.0f} ms: {late or 'none'}")
    return 1 if late or busy.ingest["entries_a_second"] < LEAST_A_SECOND else 0


if __name__ == "__main__":
    sys.exit(main())
