"""The verb about an endpoint: ask it whether it serves our release, or something made from it."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from stanch.audit.endpoint import Endpoint
from stanch.crypto import canonical_json
from stanch.data import CanaryPlan
from stanch.errors import InvalidInput
from stanch.ledger import Opening
from stanch.terms import SILENT, ArtifactRef, Digest, EntryRef, JsonValue, Progress
from stanch.trace import Chat, Hunt, ask_pairs, find_pairs, require_pairs
from stanch.trace.wealth import EPSILON
from stanch.watch.alert import check_reason
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.past_acts import begun

GROUNDS = "trace.hunt.grounds"


@dataclass(frozen=True, slots=True, kw_only=True)
class HuntOrder:
    """Whom to ask, with which canaries, and how much.

    Attributes:
        endpoint: Where the suspect model is served.
        plan: The canary plan of the data that the release was tuned on.
        grounds: Why whoever acts may ask there, in their own words; the log holds a commitment to them.
        queries: The most questions.
        per_minute: The most questions in a minute.
    """

    endpoint: Endpoint
    plan: CanaryPlan
    grounds: str
    queries: int
    per_minute: int


def hunt_release(workspace: Workspace, order: HuntOrder, *, progress: Progress = SILENT) -> Hunt:
    """Ask an endpoint for planted canaries and their twins; nothing is asked before the intent is in the log.

    Raises:
        InvalidInput: There are too few pairs or queries, no grounds, or the log does not say that the plan was planted.
        ExternalError: The endpoint gives no usable answer.
    """
    pairs, plan = find_pairs(order.plan)[: order.queries // 2], order.plan.commitment
    require_pairs(len(pairs))
    opening = Opening.make(GROUNDS, check_reason(order.grounds))

    def run(ref: EntryRef) -> Done[Hunt]:
        _require_planted(workspace, plan, ref.index)
        earlier = sum(1 for _ in begun(workspace.ledger.reader(), "trace.hunt", ref.index))
        chat = Chat(order.endpoint, order.per_minute)
        found = ask_pairs(pairs, chat.ask, hunts=earlier + 1, progress=progress)
        wealth = found.wealth
        payload: dict[str, JsonValue] = {
            "verdict": str(found.verdict), "wins": wealth.wins, "losses": wealth.losses, "ties": wealth.ties,
            "unanswered": wealth.unanswered, "hunts": found.hunts, "asked": chat.asked,
        }  # fmt: skip
        return Done(found, payload)

    payload: dict[str, JsonValue] = {
        "commitment": plan, "host": urlsplit(order.endpoint.url).hostname, "queries": order.queries,
        "epsilon": str(EPSILON),
    }  # fmt: skip
    # What is served there cannot be hashed; its address stands for it.
    address = Digest.sha256(canonical_json([order.endpoint.url, order.endpoint.model]))
    ref = ArtifactRef("case", order.plan.plan_id, address)
    return workspace.door.act(Request("trace.hunt", "case:trace", ref, payload, None, (opening,)), run)


def _require_planted(workspace: Workspace, commitment: str, before: int) -> None:
    """Refuse a plan whose coins the log did not hold before the canaries went into any data."""
    planted = begun(workspace.ledger.reader(), "data.inject", before)
    if not any(told.payload.get("commitment") == commitment for told in planted):
        raise InvalidInput(
            "hunt: the log does not say that this plan's canaries were planted",
            why="coins that nobody committed to prove nothing",
            next_step="give the plan that stanch data canaries inject planted from this workspace",
        )
