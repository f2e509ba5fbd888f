"""Take the pictures of the console that the guide shows: every page of a seeded workspace, light and dark.

Run it after a change of a page: ``python tools/make_screenshots.py``. It needs chromium; the scene is of the tests.
"""

import argparse
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
for _folder in (ROOT / "tests", ROOT / "tests" / "workspace", ROOT / "tests" / "console"):
    sys.path.insert(0, str(_folder))  # the scene of the tests: a team, its release, its alerts

import life  # noqa: E402 - found by the lines above
from seating import trace_something, watch_something  # noqa: E402 - same

from stanch.access import ApiKeyOrder, Session  # noqa: E402 - same
from stanch.console.desk import Desk  # noqa: E402 - same
from stanch.console.serve import run_console  # noqa: E402 - same
from stanch.terms import Digest  # noqa: E402 - same
from stanch.watch import Alarm, detectors, runner  # noqa: E402 - same
from stanch.watch.alert import AlertState  # noqa: E402 - same
from stanch.watch.incident import HOUR_MS, Matter, Told  # noqa: E402 - same
from stanch.watch.simulate import SimulationSpec, simulate  # noqa: E402 - same
from stanch.workspace import Workspace  # noqa: E402 - same
from stanch.workspace.verbs_access import Newcomer, issue_key, register_newcomer  # noqa: E402 - same
from stanch.workspace.verbs_alerts import find_alerts, keep_simulation  # noqa: E402 - same
from stanch.workspace.verbs_casework import (  # noqa: E402 - same
    end_task,
    give_task,
    hand_evidence,
    note_notice,
    state_matter,
)
from stanch.workspace.verbs_incident import find_incidents, join_incident  # noqa: E402 - same
from stanch.workspace.verbs_origin import state_origin  # noqa: E402 - same

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURES = ROOT / "docs" / "pictures" / "console"
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--force-color-profile=srgb",
]
WIDTH, HEIGHT, TALLEST = 1080, 700, 800
TALLER = {"overview": 1000, "incident": 960}
MOST_BYTES = 150_000
UNREAD = {"overview", "detectors"}
"""Pages that say how far the detectors are; they are let read the log before, as where a watch runs."""


def main() -> None:
    """Take every picture, and refuse one that is too large."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--chromium", default=CHROMIUM)
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only where pictures are taken

    chromium = arguments.parse_args().chromium
    PICTURES.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        _served(Path(folder)) as (workspace, url, pages),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        reader = workspace.ledger.reader()
        for scheme in ("light", "dark"):
            context = browser.new_context(color_scheme=scheme, viewport={"width": WIDTH, "height": HEIGHT})
            page = context.new_page()
            for name, (person, path) in pages.items():
                context.clear_cookies()
                if name in UNREAD:
                    runner.catch_up(reader, workspace.tables, detectors(), deliver=_refuse)
                if person:
                    context.add_cookies([_cookie(workspace, url, person)])
                page.goto(url + path, wait_until="load")
                _take(page, PICTURES / f"{name}-{scheme}.png", TALLER.get(name, TALLEST))
            context.close()
        browser.close()


def _refuse(alarms: Sequence[Alarm], _save: runner.Save) -> None:
    """Take no alarm: the scene has its own."""
    raise SystemExit(f"the scene raised alarms that nobody made: {alarms}")


def _take(page: "Page", path: Path, tallest: int) -> None:
    """Take one picture of a page, of its upper part if it is long, or from the place on that its address names."""
    top = page.evaluate("location.hash ? document.querySelector(location.hash).offsetTop - 16 : 0")
    height = min(tallest, page.evaluate("document.documentElement.scrollHeight") - top)
    page.screenshot(path=str(path), full_page=True, clip={"x": 0, "y": top, "width": WIDTH, "height": height})
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{path}: {size:,} bytes are more than {MOST_BYTES:,}")
    sys.stdout.write(f"{path.relative_to(ROOT)}  {size:,} bytes\n")


@contextmanager
def _served(folder: Path) -> Iterator[tuple[Workspace, str, dict[str, tuple[str, str]]]]:
    """Serve a team with a release that one of two approved, with alerts and an incident; yield its pages by name."""
    with socket.socket() as listener, life.cheaply():
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        case = _scene(folder, address)
        with case.acting("olga") as workspace:
            ready, stop = threading.Event(), threading.Event()
            server = threading.Thread(
                target=run_console, args=(workspace,),
                kwargs={"ready": lambda _: ready.set(), "stop": stop, "listener": listener},
            )  # fmt: skip
            server.start()
            try:
                if not ready.wait(60):
                    raise SystemExit("the console did not start")
                yield workspace, f"http://{address}", _pages(workspace)
            finally:
                stop.set()
                server.join(20)


def _scene(folder: Path, address: str) -> life.Case:
    (folder / "scene").mkdir()
    case = life.make_proposed(folder / "scene", life.make_material(folder / "material"), life.Files())
    with case.acting("rolf") as workspace:
        case.create(workspace, folder / "copy", recipient="bolt")
    with case.acting("rita") as workspace:
        case.approve(workspace, recipient="bolt")
    watch_something(case)
    trace_something(case, folder, "An adapter on a public hub")
    with case.acting("ines") as lead:
        keep_simulation(lead, simulate("D5", SimulationSpec(1500, 240), seed=1).to_json())
        _work_on(lead)
    merged = Path(shutil.copytree(case.material.base, folder / "adapter-merged"))
    (merged / "README.md").write_text("the adapter, merged into its base")
    with case.acting("dana") as dana:
        state_origin(dana, merged, case.material.model, "merged")
    settings = case.folder / "stanch.toml"
    settings.write_text(f'{settings.read_text()}\n[console]\nlisten = "{address}"\n')
    return case


def _work_on(lead: Workspace) -> None:
    """Give tasks of the incident, and hand its evidence over."""
    (incident,) = find_incidents(lead)
    now_ms, disk = int(lead.door.clock() * 1000), Digest.sha256(b"an image of the disk")
    join_incident(lead, incident.id, [one.id for one in find_alerts(lead) if one.detector == "D5"])
    note_notice(lead, incident.id, now_ms - HOUR_MS, to=Told.PEOPLE)
    state_matter(lead, incident.id, Matter.PEOPLE, "About 400 customers of one desk")
    state_matter(lead, incident.id, Matter.CONTACT, "The data protection officer, privacy@example.org")
    given = give_task(lead, incident.id, "Rotate the keys of the desk", who="olga", due_ms=now_ms + HOUR_MS)
    give_task(lead, incident.id, "Tell the customer", who="ines", due_ms=now_ms + 8 * HOUR_MS)
    end_task(lead, incident.id, given.tasks[0].entry)
    for holder, hours in (("ines", 5), ("ada", 1)):
        since_ms = now_ms - hours * HOUR_MS
        hand_evidence(lead, incident.id, disk, "Image of the gateway's disk", holder=holder, since_ms=since_ms)


def _pages(workspace: Workspace) -> dict[str, tuple[str, str]]:
    """Return who looks at which page."""
    bot = register_newcomer(workspace, Newcomer(name="support-bot", kind="service"))
    issue_key(workspace, ApiKeyOrder(principal=bot, models=("workspace",), networks=("10.0.0.0/8",)))
    lead = workspace.acting_as("ines", unlock=lambda: life.passphrase("ines"))
    alert = next(one for one in find_alerts(lead, AlertState.INVESTIGATING))
    model, (incident,) = alert.model, find_incidents(lead)
    return {
        "login": ("", "/login"), "overview": ("ada", "/"), "alerts": ("ines", "/alerts"),
        "alert": ("ines", f"/alerts/{alert.id}"), "incidents": ("ines", "/incidents"),
        "incident": ("ines", f"/incidents/{incident.id}"),
        "incident-work": ("ines", f"/incidents/{incident.id}#statements"),
        "incident-alerts": ("ines", f"/incidents/{incident.id}#alerts"), "cases": ("ines", "/cases"),
        "case": ("ines", "/cases/theft"), "detectors": ("ines", "/detectors"),
        "models": ("ada", "/models"), "model": ("ada", f"/models/{model}"),
        "model-lineage": ("ada", f"/models/{model}#lineage"), "releases": ("ada", "/releases"),
        "release": ("rolf", "/releases/r1"), "recipients": ("ada", "/recipients"),
        "approvals": ("rolf", "/approvals"), "principals": ("ada", "/principals"),
        "principal": ("olga", f"/principals/{bot}"),
        "access-why": ("ada", "/access?who=dana&action=release:export"),
        "access-who": ("ada", f"/access/who?action=release:export&resource=model:x@{model}"),
        "policies": ("olga", "/policies"), "log": ("ada", "/log"), "entry": ("ada", "/log/0"),
        "budgets": ("ada", "/budgets"), "transparency": ("ada", "/transparency"), "settings": ("ada", "/settings"),
    }  # fmt: skip


def _cookie(workspace: Workspace, url: str, name: str) -> dict[str, str]:
    now_ms = int(workspace.door.clock() * 1000)
    proven = Session(workspace.people.find(name), "x", mfa=True, started_ms=now_ms, expires_ms=now_ms + 60_000)
    return {"name": "stanch", "value": Desk.of(workspace, url).sessions.open_session(proven).cookie, "url": url}


if __name__ == "__main__":
    main()
