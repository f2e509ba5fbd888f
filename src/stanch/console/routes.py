"""The table of all addresses: method, path, handler, Cedar action, and the structures that come in and go out."""

from stanch.console import charts, lineage_picture, live, login, static_files
from stanch.console.pages import (
    alerts,
    approvals,
    budgets,
    cases,
    detectors,
    explorer,
    incidents,
    log,
    models,
    overview,
    policies,
    principals,
    releases,
    settings,
    transparency,
)
from stanch.console.pages.paging import Paged
from stanch.console.route import Nothing, Route

_SIGN_IN = "whoever signs in is nobody yet"
_FILES = "the files of the pages are public"
_LOG, _POLICY = ("log:read",), ("policy:read",)
_RELEASE = ("log:read", "release:approve")
_FINDING, _ACT = ("finding:read",), ("finding:act",)
_CASE = ("case:read",)
_ONE, _ALERT, _INCIDENT = "/principals/{id}", "/alerts/{id}", "/incidents/{id}"

OPEN: tuple[Route, ...] = (
    Route(name="login", method="GET", path="/login", handler=login.show_login, why_none=_SIGN_IN, how="open"),
    Route(name="login.begin", method="POST", path="/login", handler=login.begin_login, why_none=_SIGN_IN, how="open"),
    Route(name="callback", method="GET", path="/callback", handler=login.finish_login, why_none=_SIGN_IN, how="open"),
    Route(
        name="login.link", method="POST", path="/login/link", handler=login.redeem_link, why_none=_SIGN_IN, how="open"
    ),
    Route(
        name="logout", method="POST", path="/logout", handler=login.log_out, why_none="one's own session", how="open"
    ),
    Route(
        name="style", method="GET", path="/static/console.css", handler=static_files.serve_style, why_none=_FILES,
        how="open",
    ),
    Route(
        name="script", method="GET", path="/static/console.js", handler=static_files.serve_script, why_none=_FILES,
        how="open",
    ),
    Route(
        name="icon", method="GET", path="/static/icon.svg", handler=static_files.serve_icon, why_none=_FILES,
        how="open",
    ),
)  # fmt: skip

WATCH: tuple[Route, ...] = (
    Route(
        name="alerts", method="GET", path="/alerts", handler=alerts.list_alerts, actions=_FINDING,
        asks=alerts.AlertQuery, answers=alerts.AlertList, title="Alerts", template="alerts.html",
    ),
    Route(
        name="alert", method="GET", path=_ALERT, handler=alerts.show_alert, actions=_FINDING,
        answers=alerts.AlertView, title="Alert", template="alert.html",
    ),
    Route(
        name="alert.move", method="POST", path=f"{_ALERT}/steps", handler=alerts.move, actions=_ACT,
        asks=alerts.Move, answers=alerts.AlertRow, then=f"{_ALERT}?done=moved",
    ),
    Route(
        name="alert.close", method="POST", path=f"{_ALERT}/verdict", handler=alerts.close, actions=_ACT,
        asks=alerts.Verdict, answers=alerts.AlertRow, dangerous=True, then=f"{_ALERT}?done=moved",
    ),
    Route(
        name="alert.reopen", method="POST", path=f"{_ALERT}/reopening", handler=alerts.reopen, actions=_ACT,
        asks=alerts.Reopening, answers=alerts.AlertRow, then=f"{_ALERT}?done=moved",
    ),
    Route(
        name="alerts.suppress", method="POST", path="/suppressions", handler=alerts.suppress, actions=_ACT,
        asks=alerts.Silence, answers=alerts.Silenced, dangerous=True, then="/alerts?done=suppressed",
    ),
    Route(
        name="incidents", method="GET", path="/incidents", handler=incidents.list_incidents, actions=_FINDING,
        asks=Paged, answers=incidents.IncidentList, title="Incidents", template="incidents.html",
    ),
    Route(
        name="incidents.open", method="POST", path="/incidents", handler=incidents.open_one, actions=_ACT,
        asks=incidents.Opening, answers=incidents.IncidentRow, then="/incidents/{made}?done=opened",
    ),
    Route(
        name="incident", method="GET", path=_INCIDENT, handler=incidents.show_incident, actions=_FINDING,
        answers=incidents.IncidentView, title="Incident", template="incident.html",
    ),
    Route(
        name="incident.contain", method="POST", path=f"{_INCIDENT}/containment", handler=incidents.contain,
        actions=_ACT, asks=incidents.Order, answers=incidents.IncidentRow, dangerous=True,
        then=f"{_INCIDENT}?done=contained",
    ),
    Route(
        name="incident.task", method="POST", path=f"{_INCIDENT}/tasks", handler=incidents.add_task, actions=_ACT,
        asks=incidents.ToDo, answers=incidents.IncidentRow, then=f"{_INCIDENT}?done=given",
    ),
    Route(
        name="incident.task.done", method="POST", path=f"{_INCIDENT}/tasks/{{task}}/end",
        handler=incidents.finish_task, actions=_ACT, answers=incidents.IncidentRow, then=f"{_INCIDENT}?done=finished",
    ),
    Route(
        name="incident.custody", method="POST", path=f"{_INCIDENT}/custody", handler=incidents.hand_over,
        actions=_ACT, asks=incidents.HandOver, answers=incidents.IncidentRow, then=f"{_INCIDENT}?done=handed",
    ),
    Route(
        name="incident.notify", method="POST", path=f"{_INCIDENT}/notice", handler=incidents.notify, actions=_ACT,
        asks=incidents.Telling, answers=incidents.IncidentRow, dangerous=True, then=f"{_INCIDENT}?done=notified",
    ),
    Route(
        name="incident.join", method="POST", path=f"{_INCIDENT}/alerts", handler=incidents.join, actions=_ACT,
        asks=incidents.Joining, answers=incidents.IncidentRow, then=f"{_INCIDENT}?done=joined",
    ),
    Route(
        name="incident.state", method="POST", path=f"{_INCIDENT}/statements", handler=incidents.state, actions=_ACT,
        asks=incidents.Stating, answers=incidents.IncidentRow, then=f"{_INCIDENT}?done=stated",
    ),
    Route(
        name="incident.close", method="POST", path=f"{_INCIDENT}/end", handler=incidents.close, actions=_ACT,
        asks=incidents.Closing, answers=incidents.IncidentRow, dangerous=True, then=f"{_INCIDENT}?done=closed",
    ),
    Route(
        name="incident.export", method="POST", path=f"{_INCIDENT}/export", handler=incidents.export,
        actions=_FINDING, answers=incidents.Export, packed=True,
    ),
    Route(
        name="incident.report", method="POST", path=f"{_INCIDENT}/reports", handler=incidents.report,
        actions=_FINDING, asks=incidents.Reader, answers=incidents.Export, packed=True,
    ),
    Route(
        name="cases", method="GET", path="/cases", handler=cases.list_cases, actions=_CASE, asks=Paged,
        answers=cases.CaseList, title="Cases", template="cases.html",
    ),
    Route(
        name="case", method="GET", path="/cases/{case}", handler=cases.show_case, actions=_CASE,
        answers=cases.CaseView, title="Case", template="case.html",
    ),
    Route(
        name="detectors", method="GET", path="/detectors", handler=detectors.show_detectors, actions=_FINDING,
        answers=detectors.DetectorList, title="Detectors", template="detectors.html",
    ),
)  # fmt: skip

PAGES: tuple[Route, ...] = (
    *WATCH,
    Route(
        name="overview", method="GET", path="/", handler=overview.show_overview, answers=overview.Overview,
        why_none="each of its sections asks for its own action", title="Overview", template="overview.html",
    ),
    Route(
        name="live", method="GET", path="/live", handler=live.stream, actions=_LOG, title="Live", how="live",
    ),
    Route(
        name="chart.activity", method="GET", path="/charts/activity.svg", handler=charts.draw_activity, actions=_LOG,
        asks=charts.Theme, title="Chart", how="image",
    ),
    Route(
        name="models", method="GET", path="/models", handler=models.list_models, actions=_RELEASE, asks=Paged,
        answers=models.ModelList, title="Models", template="models.html",
    ),
    Route(
        name="model", method="GET", path="/models/{digest}", handler=models.show_model, actions=_RELEASE,
        answers=models.ModelView, title="Model", template="model.html",
    ),
    Route(
        name="model.lineage", method="GET", path="/models/{digest}/lineage.svg",
        handler=lineage_picture.draw_lineage, actions=_RELEASE, asks=charts.Theme, title="Lineage", how="image",
    ),
    Route(
        name="releases", method="GET", path="/releases", handler=releases.list_releases, actions=_RELEASE, asks=Paged,
        answers=releases.ReleaseList, title="Releases", template="releases.html",
    ),
    Route(
        name="release", method="GET", path="/releases/{name}", handler=releases.show_release, actions=_RELEASE,
        answers=releases.ReleaseView, title="Release", template="release.html",
    ),
    Route(
        name="release.approve", method="POST", path="/releases/{name}/approvals", handler=releases.hand_in,
        actions=("release:approve",), asks=releases.HandIn, answers=releases.HandedIn, dangerous=True,
        then="/releases/{name}?done=approved",
    ),
    Route(
        name="approvals", method="GET", path="/approvals", handler=approvals.show_waiting, actions=_RELEASE,
        answers=approvals.Waiting, title="Approvals", template="approvals.html",
    ),
    Route(
        name="recipients", method="GET", path="/recipients", handler=releases.list_recipients, actions=_RELEASE,
        asks=Paged, answers=releases.RecipientList, title="Recipients", template="recipients.html",
    ),
    Route(
        name="principals", method="GET", path="/principals", handler=principals.list_principals, actions=_POLICY,
        asks=Paged, answers=principals.PrincipalList, title="Principals", template="principals.html",
    ),
    Route(
        name="principals.register", method="POST", path="/principals", handler=principals.register,
        actions=("access:grant",), asks=principals.ToRegister, answers=principals.Registered, dangerous=True,
        then="/principals?done=registered",
    ),
    Route(
        name="principal", method="GET", path=_ONE, handler=principals.show_principal, actions=_POLICY,
        answers=principals.PrincipalView, title="Principal", template="principal.html",
    ),
    Route(
        name="chart.rate", method="GET", path=f"{_ONE}/rate.svg", handler=charts.draw_rate, actions=_LOG,
        asks=charts.Theme, title="Chart", how="image",
    ),
    Route(
        name="principal.grant", method="POST", path=f"{_ONE}/grants", handler=principals.grant,
        actions=("access:grant",), asks=principals.ToGrant, answers=principals.Granted, dangerous=True,
        then=f"{_ONE}?done=granted",
    ),
    Route(
        name="principal.revoke", method="POST", path=f"{_ONE}/grants/{{grant}}/revoke", handler=principals.revoke,
        actions=("access:grant",), answers=Nothing, dangerous=True, then=f"{_ONE}?done=revoked",
    ),
    Route(
        name="principal.suspend", method="POST", path=f"{_ONE}/suspension", handler=principals.suspend,
        actions=("access:grant",), answers=Nothing, dangerous=True, then=f"{_ONE}?done=suspended",
    ),
    Route(
        name="principal.resume", method="POST", path=f"{_ONE}/resumption", handler=principals.resume,
        actions=("access:grant",), answers=Nothing, dangerous=True, then=f"{_ONE}?done=resumed",
    ),
    Route(
        name="principal.issue", method="POST", path=f"{_ONE}/keys", handler=principals.issue,
        actions=("access:grant",), asks=principals.ToIssue, answers=principals.Issued, title="New key",
        template="issued.html", dangerous=True,
        secret="secret",  # noqa: S106 - the name of a field
    ),
    Route(
        name="principal.end_key", method="POST", path=f"{_ONE}/keys/{{key}}/revoke", handler=principals.end_key,
        actions=("access:grant",), answers=Nothing, dangerous=True, then=f"{_ONE}?done=revoked",
    ),
    Route(
        name="access.why", method="GET", path="/access", handler=explorer.explain_why, asks=explorer.Why,
        answers=explorer.WhyView, why_none="one's own rights are no secret; its verb asks for those of others",
        title="Why may somebody do something?", template="why.html",
    ),
    Route(
        name="access.who", method="GET", path="/access/who", handler=explorer.find_who, actions=_POLICY,
        asks=explorer.Who, answers=explorer.WhoView, title="Who can do something?", template="who.html",
    ),
    Route(
        name="policies", method="GET", path="/policies", handler=policies.show, actions=_POLICY,
        answers=policies.PoliciesView, title="Policies", template="policies.html",
    ),
    Route(
        name="policies.check", method="POST", path="/policies/check", handler=policies.check, actions=_POLICY,
        asks=policies.Change, answers=policies.CheckedView, title="A change of the policies", template="change.html",
    ),
    Route(
        name="policies.activate", method="POST", path="/policies", handler=policies.activate,
        actions=("policy:write",), asks=policies.Change, answers=policies.Activated, dangerous=True,
        then="/policies?done=activated",
    ),
    Route(
        name="log", method="GET", path="/log", handler=log.search_log, actions=_LOG, asks=log.Search,
        answers=log.Found, title="Log", template="log.html",
    ),
    Route(
        name="log.entry", method="GET", path="/log/{index}", handler=log.show_entry, actions=_LOG,
        answers=log.EntryView, title="Entry", template="entry.html",
    ),
    Route(
        name="log.verify", method="POST", path="/log/verify", handler=log.verify_now, actions=_LOG,
        answers=log.Verified, title="The log, verified now", template="verified.html",
    ),
    Route(
        name="budgets", method="GET", path="/budgets", handler=budgets.list_budgets, actions=_LOG, asks=Paged,
        answers=budgets.BudgetList, title="Budgets", template="budgets.html",
    ),
    Route(
        name="transparency", method="GET", path="/transparency", handler=transparency.report, actions=_LOG,
        asks=transparency.Span, answers=transparency.Report, title="Transparency report",
        template="transparency.html",
    ),
    Route(
        name="settings", method="GET", path="/settings", handler=settings.show, actions=_POLICY,
        answers=settings.SettingsView, title="Settings", template="settings.html",
    ),
)  # fmt: skip

ROUTES: tuple[Route, ...] = (*OPEN, *PAGES)

MENU: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("/", "Overview", ()),
    ("/alerts", "Alerts", _FINDING),
    ("/incidents", "Incidents", _FINDING),
    ("/cases", "Cases", _CASE),
    ("/detectors", "Detectors", _FINDING),
    ("/models", "Models", _RELEASE),
    ("/releases", "Releases", _RELEASE),
    ("/recipients", "Recipients", _RELEASE),
    ("/approvals", "Approvals", _RELEASE),
    ("/principals", "Principals", _POLICY),
    ("/access", "Access explorer", ()),
    ("/policies", "Policies", _POLICY),
    ("/log", "Log", _LOG),
    ("/budgets", "Budgets", _LOG),
    ("/transparency", "Transparency", _LOG),
    ("/settings", "Settings", _POLICY),
)
"""The navigation: path, title, and the actions of which one suffices to see it."""
