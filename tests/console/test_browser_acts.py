"""Every act that a page offers, done in a real browser: here, in the story, or without a script; none is left out."""

import re

import pytest
from seating import alarm
from test_pages import Watched, browser, pytestmark, served, signed_in  # noqa: F401 - fixtures, and the same conditions

from stanch.console.routes import OPEN, PAGES
from stanch.workspace.verbs_alerts import raise_alarms

ELSEWHERE = {
    "login.begin": "test_story", "release.approve": "test_story", "principal.end_key": "test_story",
    "login.link": "test_pages", "log.verify": "test_story",
}  # fmt: skip
"""Forms that another browser test sends: that of the story, or of pages without a script."""
POSTS = [route for route in (*OPEN, *PAGES) if route.method == "POST"]


def name_of(path):
    """Return the name of the route of an address to which a form was sent."""
    for route in POSTS:
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route.path), path):
            return route.name
    raise AssertionError(path)


class Person(Watched):
    """Somebody who is signed in, says yes to every question, and whose forms are kept."""

    def __init__(self, browser, workspace, url, name):  # noqa: F811 - the argument
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        self.context.add_cookies([signed_in(workspace, url, name)])
        super().__init__(self.context, url)
        self.sent = set()
        self.page.on("dialog", lambda dialog: dialog.accept())
        self.page.on("request", self._keep)

    def _keep(self, request):
        if request.method == "POST":
            self.sent.add(name_of(request.url.removeprefix(self.url)))

    def fill(self, **fields):
        for field, text in fields.items():
            self.page.fill(f"#{field}", text)

    def press(self, text, said=None):
        """Press a button by its words and see what the page says then."""
        self.page.click(f"main button:text-is('{text}') >> nth=0")
        if said is not None:
            assert self.page.locator(".said").inner_text() == said

    def take(self, text):
        """Press a button that answers with a file; return the name of the file."""
        with self.page.expect_download() as download:
            self.press(text)
        return download.value.suggested_filename


def work_as_lead(ines, now):
    """Do everything that a lead of incidents does."""
    ines.go("/alerts?state=open")
    ines.page.click("tbody a >> nth=0")
    alert = ines.page.url
    ines.press("Investigate", "The alert took the step.")
    ines.press("Close", "The alert took the step.")
    ines.fill(reason="it came back")
    ines.press("Open again", "The alert took the step.")
    ines.fill(discovered=now)
    ines.press("Open an incident", "The incident is open; its clock runs.")
    ines.page.select_option("#action", "lower_budget")
    ines.page.click("text=For a lower budget")
    ines.fill(target="dana", model="sha256:" + "1" * 64, requests="3")
    ines.press("Contain", "It was done, and the timeline says so.")
    ines.fill(what="tell the customer", who="ada", due=now)
    ines.press("Give the task", "The task is given.")
    ines.press("Done", "The task is done.")
    ines.page.click("text=Hand evidence over")
    ines.fill(evidence="the disk", digest="sha256:" + "2" * 64, holder="ines", since=now)
    ines.press("Hand over", "The evidence is in their hands.")
    for button, name in (("Export", ""), ("For the authority", "-authority"), ("For a customer", "-customer")):
        assert re.fullmatch(rf"i_[0-9a-f]{{32}}{name}\.zip", ines.take(button))
    ines.fill(statement="about 400 customers")
    ines.press("State it", "It is stated.")
    ines.fill(alert=alert.rpartition("/")[2])
    ines.press("Add it", "The alert belongs to the incident.")
    ines.fill(at=now)
    ines.press("Note it", "The notice is noted.")
    ines.press("Close", "The incident is closed.")
    assert ines.page.locator("main form").count() == 2  # what leaves of it, and nothing that changes it
    ines.go("/alerts")
    ines.page.click("text=Keep alarms quiet for a while")
    ines.fill(detector="D5", until=now[:11] + "23:59", reason="a load test")
    ines.press("Keep quiet", "It is kept quiet; it is recorded all the same.")
    ines.page.goto(alert)


def work_as_administrator(olga):
    """Do everything that an administrator does; policies of a team need others, which the page says."""
    olga.go("/principals")
    olga.page.select_option("#kind", "service")
    olga.fill(name="robot")
    olga.press("Register", "The principal was registered.")
    olga.page.click("tbody a:text-is('robot')")
    where = olga.page.url
    olga.page.select_option("#role", "auditor")
    olga.press("Grant", "The role was granted.")
    olga.page.click("form[action*='/grants/'] button")
    assert olga.page.locator(".said").inner_text() == "It was revoked."
    olga.fill(model="workspace", network="10.0.0.0/8", action="log:read")
    olga.press("Issue a key")
    assert olga.page.locator("pre code").inner_text().startswith("stk_")
    olga.page.goto(where)
    assert "in force" in olga.page.locator("[aria-label=Keys]").inner_text()
    olga.press("Suspend", "It may do nothing until it is resumed.")
    olga.press("Resume", "It may sign in again.")
    olga.go("/policies")
    olga.press("Check")
    olga.press("Activate")
    assert "403" in olga.page.locator("h1").inner_text()
    assert olga.trouble == ["Failed to load resource: the server responded with a status of 403 (Forbidden)"]
    olga.trouble.clear()
    olga.go("/")
    olga.page.click("text=Sign out")
    assert olga.page.locator("h1").inner_text() == "Sign in"


@pytest.mark.slow
def test_every_act_is_done_in_a_browser(served, browser):  # noqa: F811 - the fixtures
    workspace, url, _ = served
    raise_alarms(workspace, [alarm(40, detector="D4", signal="extraction")])
    sent = set()
    for name, work in (("ines", lambda one: work_as_lead(one, f"{workspace.now():%Y-%m-%dT%H:%M}")),
                       ("olga", work_as_administrator)):  # fmt: skip
        person = Person(browser, workspace, url, name)
        work(person)
        assert person.trouble == []
        sent |= person.sent
        person.context.close()
    assert sent | set(ELSEWHERE) == {route.name for route in POSTS}
