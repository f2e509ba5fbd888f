"""A console for tests, with browsers that are signed in."""

from dataclasses import dataclass, field

import life
from starlette.testclient import TestClient

from stanch.access import Session
from stanch.workspace import Workspace

ADDRESS = "http://127.0.0.1:8402"


@dataclass
class Seat:
    """A console of a workspace that a test may change."""

    workspace: Workspace
    case: life.Case
    app: object
    clients: list[TestClient] = field(default_factory=list)

    def client(self, **options):
        settings = {"follow_redirects": False, "client": ("127.0.0.1", 50000)} | options
        client = TestClient(self.app, base_url=ADDRESS, **settings)
        self.clients.append(client)
        return client

    def browser(self, name, *, mfa=True):
        """Return a browser in which somebody is signed in."""
        desk = self.app.desk
        principal = self.workspace.people.find(name)
        now_ms = int(self.workspace.door.clock() * 1000)
        opened = desk.sessions.open_session(Session(principal, "x", mfa, now_ms, now_ms + 60_000))
        client = self.client()
        client.cookies.set("stanch", opened.cookie)
        client.session, client.desk = opened.session, desk
        return client


def post(client, path, *, route=None, **fields):
    """Send a form as a page of the session would."""
    token = client.desk.csrf.token(client.session.key_id, f"POST {route or path}")
    headers = {"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"}
    return client.post(path, data={"_token": token, **fields}, headers=headers)
