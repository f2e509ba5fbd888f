"""The pages in a real browser: light and dark, narrow and wide, without a script, and clean for axe."""

import shutil
import socket
import threading
from dataclasses import replace

import life
import pytest
from seating import alarm

from stanch.access import ApiKeyOrder, Session
from stanch.console.desk import Desk
from stanch.console.serve import run_console
from stanch.terms import Digest
from stanch.watch.alert import AlertState
from stanch.workspace.verbs_access import Newcomer, grant_role, issue_key, register_newcomer
from stanch.workspace.verbs_alerts import find_alerts, raise_alarms
from stanch.workspace.verbs_casework import end_task, give_task, hand_evidence
from stanch.workspace.verbs_console import make_token
from stanch.workspace.verbs_incident import find_incidents

# The same engine without the windows, which take most of the time even where nobody sees them.
CHROMIUM = shutil.which("/usr/bin/chromium-headless-shell") or "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

pytestmark = [
    pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason="chromium is not installed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def served(proposed, tmp_path_factory):
    """A console that a browser reaches, and a cookie of ada, who sees nearly everything."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        case = replace(proposed, folder=life.Files().copy(proposed.folder, tmp_path_factory.mktemp("pages") / "w"))
        settings = case.folder / "stanch.toml"
        settings.write_text(f'{settings.read_text()}\n[console]\nlisten = "127.0.0.1:{port}"\n')
        with life.cheaply(), case.acting("olga") as workspace:
            ready, stop = threading.Event(), threading.Event()
            thread = threading.Thread(
                target=run_console, args=(workspace,),
                kwargs={"ready": lambda _: ready.set(), "stop": stop, "listener": listener},
            )  # fmt: skip
            thread.start()
            try:
                assert ready.wait(60)
                bot = register_newcomer(workspace, Newcomer(name="bot", kind="service"))
                issue_key(workspace, ApiKeyOrder(principal=bot, models=("workspace",), networks=("10.0.0.0/8",)))
                work_on(workspace.acting_as("ines", unlock=lambda: life.passphrase("ines")))
                yield workspace, f"http://127.0.0.1:{port}", bot
            finally:
                stop.set()
                thread.join(60)


def work_on(lead):
    """Give two tasks of the incident, of which one is done and one late, and hand its evidence over."""
    (incident,), now_ms = find_incidents(lead), int(lead.door.clock() * 1000)
    given = give_task(lead, incident.id, "rotate the keys", who="olga", due_ms=now_ms)
    give_task(lead, incident.id, "tell the customer", who="ines", due_ms=now_ms)
    end_task(lead, incident.id, given.tasks[0].entry)
    for holder in ("ines", "ada"):
        hand_evidence(lead, incident.id, Digest.sha256(b"a disk"), "a disk", holder=holder, since_ms=now_ms)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def signed_in(workspace, url, name):
    """Return the cookie of somebody's session."""
    now_ms = int(workspace.door.clock() * 1000)
    proven = Session(workspace.people.find(name), "x", mfa=True, started_ms=now_ms, expires_ms=now_ms + 900_000)
    return {"name": "stanch", "value": Desk.of(workspace, url).sessions.open_session(proven).cookie, "url": url}


class Watched:
    """A page whose console, requests and policy violations are kept."""

    def __init__(self, context, url):
        self.page, self.url, self.trouble = context.new_page(), url, []
        self.page.on(
            "console", lambda message: message.type in {"error", "warning"} and self.trouble.append(message.text)
        )
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("request", self._request)

    def _request(self, request):
        if not request.url.startswith(self.url):
            self.trouble.append(f"asked {request.url}")

    def go(self, path):
        answer = self.page.goto(self.url + path, wait_until="load")
        assert answer.status == 200, (path, answer.status)
        return self.page


def watched_paths(workspace):
    """Return the pages of alerts and incidents."""
    lead = workspace.acting_as("ines", unlock=lambda: life.passphrase("ines"))
    taken = next(one for one in find_alerts(lead) if one.owner)
    return [
        "/alerts", *(f"/alerts/{one.id}" for one in find_alerts(lead, AlertState.OPEN)[:1]), f"/alerts/{taken.id}",
        "/incidents", *(f"/incidents/{one.id}" for one in find_incidents(lead)), "/detectors",
    ]  # fmt: skip


def paths(workspace, bot):
    digest = next(iter((workspace.state / "releases").glob("*/release.json"))).read_text()
    model = digest.partition('"digest":"')[2][:71]
    return [
        "/", "/models", f"/models/{model}", "/releases", "/releases/r1", "/recipients", "/approvals", "/principals",
        f"/principals/{bot}", "/access?action=log:read", f"/access/who?action=release:export&resource=model:x@{model}",
        "/policies", "/log", "/log/0", "/budgets", "/transparency", "/settings", "/cases", "/cases/theft",
        "/cases/waiting",
    ]  # fmt: skip


WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CONTRAST = {"runOnly": ["color-contrast"]}
DARK = {"/", "/alerts", "/detectors", "/releases/r1", "/policies"}
"""Pages that show every colour of the dark theme between them."""


def violations(axe, page, rules=None):
    # What passes is not listed node by node: on a long page that takes longer than the rules.
    found = axe.run(page, options={"resultTypes": ["violations"], **(rules or {})}).response["violations"]
    return [(one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found]


def check_page(axe, page, path):
    """Look at a loaded page in every theme and width. Of what axe checks, only contrast depends on the theme."""
    assert violations(axe, page) == [], path
    for scheme, width in (("light", 1440), ("dark", 1440), ("dark", 360), ("light", 360)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(WIDER) <= 0, (path, scheme, width)
        if scheme == "dark" and width == 360 and path in DARK:
            assert violations(axe, page, CONTRAST) == [], (path, scheme)


@pytest.mark.parametrize("name", ["ada", "ines"])
def test_every_page_is_clean_in_a_browser(served, browser, name):
    """No error, no policy violation, no request elsewhere, nothing wider than the window, no finding of axe.

    ines sees the forms of alerts and incidents; ada sees nearly everything else.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    workspace, url, bot = served
    context = browser.new_context(
        color_scheme="light", viewport={"width": 360, "height": 900}, reduced_motion="reduce"
    )  # else a colour is measured while it fades
    context.add_cookies([signed_in(workspace, url, name)])
    watched = Watched(context, url)
    for path in watched_paths(workspace) if name == "ines" else paths(workspace, bot):
        page = watched.go(path)
        if path == "/" or path.startswith("/models/"):
            assert page.evaluate("document.querySelector('figure img').naturalWidth") > 0, path
        check_page(axe, page, path)
    context.close()
    assert watched.trouble == []


def test_pages_work_without_a_script(served, browser):
    """Sign in with a link, grant a role, check a change, and sign out: forms alone."""
    workspace, url, bot = served
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{url}/login?token={make_token(workspace).text}")
    page.click("text=Sign in >> nth=-1")
    assert page.locator("h1").inner_text() == "Overview"
    page.goto(f"{url}/principals/{bot}")
    page.select_option("#role", "consumer")
    page.click("button:text-is('Grant')")
    assert page.locator(".said").inner_text() == "The role was granted."
    assert workspace.people.directory.facts_of(bot).roles == {"consumer"}
    page.goto(f"{url}/policies")
    page.click("button:text-is('Check')")
    assert "nothing" in page.locator("dl").first.inner_text()
    context.clear_cookies()
    context.add_cookies([signed_in(workspace, url, "ines")])
    page.goto(f"{url}/alerts?state=open")
    page.locator("tbody a").first.click()
    page.click("text=Take it on")
    assert page.locator(".said").inner_text() == "The alert took the step."
    page.select_option("#verdict", "false")
    page.click("button:text-is('Close')")
    assert "false alarm" in page.locator(".lead").inner_text()
    page.click("text=Sign out")
    assert page.locator("h1").inner_text() == "Sign in"
    context.close()


def test_the_script_switches_colours_and_follows_the_log(served, browser):
    workspace, url, _ = served
    context = browser.new_context(color_scheme="light")
    context.add_cookies([signed_in(workspace, url, "ada")])
    watched = Watched(context, url)
    page = watched.go("/")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert "theme=dark" in page.locator("figure img").get_attribute("src")
    shown = page.locator("#log-size").inner_text()
    grant_role(workspace, "nina", "consumer", 3)
    page.wait_for_function("was => document.getElementById('log-size').textContent !== was", arg=shown, timeout=60_000)
    waiting = int(page.locator("#alerts-open").inner_text())
    raise_alarms(workspace, [alarm(20)])
    more = "waiting => document.getElementById('alerts-open').textContent === String(waiting + 1)"
    page.wait_for_function(more, arg=waiting, timeout=60_000)
    assert page.locator("#alerts-news").is_visible()
    context.close()
    assert watched.trouble == []
