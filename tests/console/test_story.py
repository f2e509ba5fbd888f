"""A leak from its alert to its evidence, and a release approved by two: people at a browser, a real OpenID provider.

The gateway, the watch and the console run on one workspace; a model's server gives its canary away. Everybody signs in
at the provider; approvals are signed elsewhere with the person's own key and handed in.
"""

import io
import json
import shutil
import socket
import threading
import time
import zipfile
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import life
import pytest
from test_oidc import pytestmark as needs_provider
from test_oidc import running_provider
from test_pages import CHROMIUM, FLAGS, Watched

from stanch.access import ApiKeyOrder
from stanch.cli.approval import _for_console
from stanch.console.serve import run_console
from stanch.gateway.app import Gateway
from stanch.gateway.budgets import Limits
from stanch.gateway.desk import Desk
from stanch.gateway.model import ServedModel
from stanch.gateway.serve import run_server
from stanch.gateway.upstream import Upstream
from stanch.guard import Guard, GuardPolicy
from stanch.ledger import verify_proof
from stanch.release import approve
from stanch.terms import ArtifactRef, Digest
from stanch.watch.alert import AlertState
from stanch.watch.leak import FindingDetector
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_access import Newcomer, issue_key, register_newcomer
from stanch.workspace.verbs_alerts import find_alerts
from stanch.workspace.verbs_approve import load_record, register_key
from stanch.workspace.watcher import Watcher

httpx = pytest.importorskip("httpx", reason="httpx is not installed: pip install 'stanch[dev]'")
pytestmark = [
    needs_provider,
    pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason="chromium is not installed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
CANARY = "the code of the vault is 48151623"
PEOPLE = {"iris": "incident_lead", "olaf": "platform_admin", "rosa": "release_manager", "rick": "release_manager"}


class Model(BaseHTTPRequestHandler):
    """A server of a model that gives its canary away."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": f"They say {CANARY}."}
        answer = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def running(work, *arguments, **options):
    """Run a server in a thread; yield the address that it told."""
    told, known, stop = [], threading.Event(), threading.Event()
    ready = lambda address: (told.append(address), known.set())  # noqa: E731 - two acts in one
    thread = threading.Thread(target=work, args=arguments, kwargs={"ready": ready, "stop": stop, **options})
    thread.start()
    try:
        assert known.wait(60)
        yield told[0]
    finally:
        stop.set()
        thread.join(60)


@contextmanager
def gateway(workspace, model):
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as upstream:
        upstream.daemon_threads = True
        threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        url = f"http://127.0.0.1:{upstream.server_port}"
        guard = Guard(GuardPolicy(canaries=(CANARY,)))
        served = ServedModel("bot", model, url, "inner", ("chat",), guard, "sha256:" + "a" * 64)
        app = Gateway(Desk.of(workspace), {"bot": served}, Upstream(), {"bot": Limits(1000, 10**6, 1000)})
        with running(run_server, workspace, app) as address:
            yield address
        upstream.shutdown()


@contextmanager
def watching(workspace, again):
    stop, trouble = threading.Event(), []
    watcher = Watcher(workspace, (FindingDetector(),), again, stop, trouble.append)
    thread = threading.Thread(target=watcher.run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert trouble == []


class Town:
    """What the story needs: addresses, keys, and what people do elsewhere."""

    def __init__(self, case, stack):
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.issuer = stack.enter_context(running_provider(f"{self.url}/callback", MFA="1"))
        settings = case.folder / "stanch.toml"
        settings.write_text(
            f'{settings.read_text()}\n[console]\nlisten = "{self.url[7:]}"\n[gateway]\nlisten = "127.0.0.1:0"\n'
            f'[[access.issuers]]\nissuer = "{self.issuer}"\nclient_id = "console"\n'
            'client_secret = "env:CONSOLE_SECRET"\n'
        )
        self.identities = {name: life.generate_identity() for name in PEOPLE}
        self.case = case
        self.workspace = stack.enter_context(case.acting("olga"))
        for name, role in PEOPLE.items():
            life.bring_person(self.workspace, name, [role], vouched=(self.issuer, name))
            if role == "release_manager":
                life.acting_in(self.workspace, name, register_key, str(self.identities[name].recipient))
        with case.acting("rolf") as rolf:
            case.create(rolf, case.folder.parent / "acme", recipient="acme", approvers=("rosa", "rick"))
        facts = ReleaseState.load(self.workspace.state / "releases" / "r1").facts
        self.model = ArtifactRef("model", "bot", Digest.parse(str(facts.digest)))
        bot = register_newcomer(self.workspace, Newcomer(name="desk", kind="service", roles=("consumer",)))
        order = ApiKeyOrder(
            principal=bot, models=(str(self.model.digest),), networks=("127.0.0.0/8",), actions=("model:infer",)
        )
        self.bot, self._secret = bot, issue_key(self.workspace, order)[1].text
        self.gateway = stack.enter_context(gateway(self.workspace, self.model))
        stack.enter_context(running(run_console, self.workspace, listener=listener))

    def again(self):
        return self.workspace.acting_as("olga", unlock=life.passphrase)

    def ask(self):
        body = {"model": "bot", "messages": [{"role": "user", "content": "What is the code?"}]}
        headers = {"authorization": f"Bearer {self._secret}"}
        return httpx.post(f"{self.gateway}/v1/chat/completions", json=body, headers=headers, timeout=300)

    def open_alerts(self, *, above, detector):
        """Wait for an open alert of a detector, and return how many are open then."""
        for _ in range(600):
            found = find_alerts(
                self.workspace.acting_as("ines", unlock=lambda: life.passphrase("ines")), AlertState.OPEN
            )
            if len(found) > above and any(one.detector == detector for one in found):
                return len(found)
            time.sleep(0.1)
        raise AssertionError("no alert came")

    def sign(self, name):
        """Return what ``stanch release approve-offline --origin`` writes on the machine of ``name``."""
        record = load_record(self.workspace, "r1", "acme")
        acting = self.workspace.acting_as(name, unlock=lambda: life.passphrase(name))
        share = approve(record, self.identities[name], acting.people.local.key, now=acting.now())
        return _for_console(record.request, acting.people.local.key, share, self.workspace.ledger.origin).decode()


@pytest.fixture
def town(proposed, tmp_path, monkeypatch):
    monkeypatch.setenv("CONSOLE_SECRET", "a secret of the tests")
    case = replace(proposed, folder=life.Files().copy(proposed.folder, tmp_path / "w"))
    with ExitStack() as stack:
        yield Town(case, stack)


class Person(Watched):
    """Somebody at a browser of their own; answers every confirmation with yes."""

    def __init__(self, browser, town, name):
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        super().__init__(self.context, town.url)
        self.page.on("dialog", lambda dialog: dialog.accept())
        asked = "/access?action=log%3Aread"
        self.go(asked)  # which leads to the sign-in, and from the provider back here
        self.page.click("text=Continue")
        self.page.fill("input[name=login]", name)
        self.page.fill("input[name=password]", "anything")
        self.page.click("button[type=submit]")
        self.page.click("button[type=submit]")  # the provider asks whether the console may know who it is
        self.page.wait_for_url(f"{town.url}{asked}")
        self.trouble.clear()  # the provider's pages are not ours
        self.go("/")

    def said(self):
        return self.page.locator(".said").inner_text()


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def check_evidence(workspace, incident, data):
    """Hold an exported ZIP file against the log."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    told = json.loads(archive.read(f"{incident}/incident.json"))
    reader, policy = workspace.ledger.reader(), workspace.ledger.policy
    for row in told["timeline"]:
        proof = archive.read(f"{incident}/proofs/{row['index']}.tlog-proof")
        assert verify_proof(proof, reader.entry(row["index"]), policy).checkpoint_size > row["index"]
    assert {"gateway.infer", "watch.incident.open"} <= {row["kind"] for row in told["timeline"]}


@pytest.mark.slow
def test_a_release_by_two_people_and_a_leak_from_its_alert_to_its_evidence(town, browser):
    for name, shown in (("rosa", "1 of 2 approvals"), ("rick", ">released<")):
        approver = Person(browser, town, name)
        approver.go("/releases/r1")
        approver.page.fill("#approve-1 textarea, [id^=approval-] >> nth=0", town.sign(name))
        approver.page.click("button:text-is('Hand in')")
        assert shown in approver.page.content()
        assert approver.trouble == []
        approver.context.close()

    iris = Person(browser, town, "iris")
    page = iris.page
    waiting = int(page.locator("#alerts-open").inner_text())
    with watching(town.workspace, town.again):
        answer = town.ask()
        assert answer.json()["choices"][0]["finish_reason"] == "content_filter"
        assert CANARY not in answer.text
        # Live: nobody loads the page again. The other incident's clock may raise an alert of its own meanwhile.
        more = "count => Number(document.getElementById('alerts-open').textContent) >= count"
        page.wait_for_function(more, arg=town.open_alerts(above=waiting, detector="D1"), timeout=60_000)
    page.click("#alerts-news a")
    page.click("tbody a:has-text('canary') >> nth=0")
    assert page.locator("h1").inner_text() == "D1: canary"
    page.click("text=Take it on")
    assert iris.said() == "The alert took the step."

    page.fill("#discovered", f"{datetime.now(UTC):%Y-%m-%dT%H:%M}")
    page.click("text=Open an incident")
    assert "hours left" in page.content()
    incident = page.url.partition("/incidents/")[2].partition("?")[0]
    page.select_option("#action", "quarantine_model")
    page.fill("#target", str(town.model.digest))
    page.click("button:text-is('Contain')")
    assert "quarantine_model" in page.locator(".steps").inner_text()
    page.wait_for_timeout(600)  # for how long a decision of the gateway may be remembered
    assert town.ask().status_code == 403
    olaf = Person(browser, town, "olaf")
    olaf.go(f"/principals/{town.bot}")
    for button, said, status in (("Suspend", "It may do nothing until it is resumed.", 401),
                                 ("Resume", "It may sign in again.", 403)):  # fmt: skip
        olaf.page.click(f"button:text-is('{button}')")
        assert olaf.said() == said
        assert town.ask().status_code == status
    olaf.page.click("button:text-is('Revoke') >> nth=-1")
    assert "revoked" in olaf.page.content()
    assert olaf.trouble == []
    olaf.context.close()
    assert town.ask().status_code == 401

    with page.expect_download() as download:
        page.click("button:text-is('Export')")
    check_evidence(town.workspace, incident, Path(download.value.path()).read_bytes())

    iris.go("/log")
    page.click("text=Verify now")
    assert page.locator(".badge.good").inner_text() == "whole"
    assert iris.trouble == []
    iris.context.close()
