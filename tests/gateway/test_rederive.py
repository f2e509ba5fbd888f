"""Budgets against the log: many gateways at once, gateways that are killed, and tables that say something else."""

import asyncio
import contextlib
import random
from dataclasses import replace

import hosts
import pytest
from serving import MODEL, key_of
from sqlalchemy import select, update

from stanch.crypto import passphrase
from stanch.errors import InvalidInput
from stanch.gateway.budgets import Amounts, Budgets, Charge, Limits
from stanch.gateway.desk import EMBED, INFER
from stanch.gateway.rederive import Book, rederive
from stanch.store.schema.gateway import budget_use
from stanch.store.schema.ledger import ledger_opening
from stanch.workspace import Workspace
from stanch.workspace.verbs_serve import BudgetReset, reset_budget

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")


def settings(port, **limits):
    head = '\n[gateway]\nlisten = "127.0.0.1:0"\nrequests_per_minute = 1000000\ntokens_per_day = 1000000000000\n'
    head += "".join(f"{name} = {value}\n" for name, value in limits.items())
    return head + f'[[gateway.models]]\nname = "bot"\ndigest = "{MODEL.digest}"\nupstream = "http://127.0.0.1:{port}"\n'


def used_of(workspace, name, budget):
    found = Budgets(workspace.tables).uses(workspace.people.find(name))
    return sum(use.used for use in found if use.budget == budget)


@contextlib.asynccontextmanager
async def model_server():
    server = await asyncio.start_server(hosts.answer_all, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def begin():
    with hosts.forking() as begin:
        yield begin


@pytest.mark.slow
def test_three_gateways_on_one_postgresql_never_overspend_together(tmp_path, postgresql, begin, monkeypatch):
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "stanch.toml").write_text(
        f'[workspace]\ntables = "{postgresql.database()}"\n\n[ledger]\norigin = "example.com/shared"\n\n'
        '[access]\nprofile = "team"\n'
    )
    monkeypatch.setattr("stanch.crypto.passphrase._COSTS", passphrase._COSTS)  # put back what as_olga changes here
    with Workspace.init(folder, profile="team", owner="olga", passphrase=hosts.as_olga()["unlock"]()) as workspace:
        key = key_of(workspace, "program")

    async def load():
        async with model_server() as port:
            path = folder / "stanch.toml"
            path.write_text(path.read_text() + settings(port, tokens_in_total=40 * hosts.EACH, requests_in_total=60))
            gateways = [await asyncio.to_thread(begin, folder, hosts.as_olga) for _ in range(3)]
            seen = hosts.Seen()
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                await asyncio.gather(*(seen.ask(session, gateways[at % 3].url, key) for at in range(70)))
                together = len(seen.whole)
                for at in range(100):  # what is left is given out one by one
                    await seen.ask(session, gateways[at % 3].url, key)
                    if seen.statuses[-1] == 429:
                        break
            for gateway in gateways:
                await asyncio.to_thread(gateway.end)
            return seen, together

    seen, together = asyncio.run(load())
    assert {200, 429} <= set(seen.statuses) <= {200, 429, 503}  # a machine that is busy tells some to come again
    assert seen.whole == seen.begun
    assert 0 < together <= 40
    with Workspace.open(folder, **hosts.as_olga()) as workspace:
        spent = used_of(workspace, "program", "tokens/total")
        assert hosts.EACH * len(seen.whole) <= spent <= 40 * hosts.EACH
        assert 503 in seen.statuses or spent == hosts.EACH * len(seen.whole)
        derived, intents, outcomes = hosts.book(workspace)
        assert sum(derived[key] for key in derived if key[2] == "tokens/total") == spent
        assert outcomes == seen.whole <= intents


@pytest.mark.slow
def test_a_gateway_that_is_killed_again_and_again_answers_nothing_unrecorded(tmp_path, begin):
    folder = tmp_path / "w"
    with Workspace.init(folder) as workspace:
        key = key_of(workspace, "program")
    rng, seen = random.Random(5), hosts.Seen()

    async def load():
        where, ended = [""], []

        async def client(session):
            while not ended:
                with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                    await seen.ask(session, where[0], key)
                    continue
                await asyncio.sleep(0.02)

        async with model_server() as port, aiohttp.ClientSession() as session:
            path = folder / "stanch.toml"
            path.write_text(path.read_text() + settings(port, tokens_in_total=10**9, requests_in_total=10**9))
            clients = []
            for _ in range(8):
                gateway = await asyncio.to_thread(begin, folder)
                where[0] = gateway.url
                clients = clients or [asyncio.create_task(client(session)) for _ in range(4)]
                enough = len(seen.statuses) + rng.randint(2, 12)
                async with asyncio.timeout(60):
                    while len(seen.statuses) < enough:  # noqa: ASYNC110 - a kill shall come at any moment
                        await asyncio.sleep(rng.uniform(0, 0.02))
                await asyncio.to_thread(gateway.kill)
            ended.append(1)
            await asyncio.gather(*clients)

    asyncio.run(load())
    assert len(seen.whole) > 20
    with Workspace.open(folder) as workspace:
        derived, intents, outcomes = hosts.book(workspace)
        assert seen.begun <= intents
        assert seen.whole <= outcomes
        tokens, requests = (used_of(workspace, "program", f"{name}/total") for name in ("tokens", "requests"))
        assert requests == len(intents) >= len(seen.begun)
        assert tokens == sum(derived[key] for key in derived if key[2] == "tokens/total")
        cut = len(intents) - len(outcomes)
        # Of those that were cut off each costs what it had reserved: 10 and a quarter of the prompt.
        assert tokens > hosts.EACH * len(outcomes) + 10 * cut >= hosts.EACH * len(seen.whole)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    with Workspace.init(tmp_path_factory.mktemp("rederive") / "w") as workspace:
        yield workspace


def infer(workspace, principal, reserved, used, *, at_ms, limits, kind=INFER):
    """Do an act as the gateway does it; ``used`` None dies before its outcome, an exception fails with 5 tokens."""
    from stanch.workspace import Done, Request  # noqa: PLC0415 - beside the code that needs them

    budgets = Budgets(workspace.tables)
    charge = [Charge(principal, str(MODEL.digest), Amounts(tokens=reserved), at_ms)]

    def reserve(connection):
        charge[0] = budgets.reserve(connection, charge[0], limits)

    def spent():
        amounts = Amounts(tokens=used if isinstance(used, int) else 5)
        return Done(None, {"used": amounts.record()}, settle=lambda c: budgets.settle(c, charge[0], amounts) and None)

    def act(_ref):
        if used is None:
            raise GeneratorExit
        if not isinstance(used, int):
            raise used
        return spent()

    payload = {"reserved": charge[0].amounts.record(), "charged_ms": at_ms}
    request = Request(*kind, MODEL, payload, reserve=reserve, spent=spent)
    with contextlib.suppress(GeneratorExit, ValueError):
        workspace.door.act(request, act)


LIMITS = Limits(None, 10**9, 8, tokens_in_total=10**9, requests_in_total=10**9)


def rows(workspace):
    return {
        row.budget: row.used
        for row in Budgets(workspace.tables).uses(workspace.door.who.principal)
        if row.model == str(MODEL.digest)
    }


def test_whatever_the_tables_say_the_log_is_right(workspace):
    budgets, who = Budgets(workspace.tables), workspace.door.who.principal
    now = budgets.now_ms()
    infer(workspace, who, 100, 30, at_ms=now, limits=LIMITS)
    infer(workspace, who, 100, None, at_ms=now, limits=LIMITS)
    infer(workspace, who, 100, ValueError("x"), at_ms=now, limits=LIMITS)
    infer(workspace, who, 20, 10, at_ms=now, limits=LIMITS, kind=EMBED)
    truth = rows(workspace)
    assert truth == {"requests/total": 4, "tokens/day": 145, "tokens/total": 145}
    reader, limits = workspace.ledger.reader(), {str(MODEL.digest): LIMITS}
    assert rederive(budgets, reader, limits) == 0
    with workspace.tables.write() as connection:
        connection.execute(update(budget_use).values(used=1))
    assert rederive(budgets, reader, limits) == 3
    assert rows(workspace) == truth
    with workspace.tables.write() as connection:
        connection.execute(budget_use.delete())
    assert rederive(budgets, reader, {str(MODEL.digest): Limits(None, 10**9)}) == 1  # totals have no limit any more
    assert rows(workspace) == {"tokens/day": 145}
    rederive(budgets, reader, limits)
    assert rows(workspace) == truth


def test_a_reset_is_an_act_and_the_log_tells_it(workspace):
    budgets, who = Budgets(workspace.tables), workspace.door.who.principal
    infer(workspace, who, 50, None, at_ms=budgets.now_ms(), limits=LIMITS)
    reset_budget(workspace, BudgetReset(who, (str(MODEL.digest),), "tokens", "a mistake"), budgets.reset)
    assert "tokens/total" not in rows(workspace)
    infer(workspace, who, 40, 10, at_ms=budgets.now_ms(), limits=LIMITS)
    assert rows(workspace)["tokens/total"] == 10
    assert rederive(budgets, workspace.ledger.reader(), {str(MODEL.digest): LIMITS}) == 0


def test_the_reason_of_a_reset_can_be_erased(workspace):
    """It is a person's own words: the log holds their commitment alone."""
    budgets, who, words = Budgets(workspace.tables), workspace.door.who.principal, "Alice asked for it"
    order = BudgetReset(who, (str(MODEL.digest),), "tokens", words)
    reset_budget(workspace, order, budgets.reset)
    assert not any(words.encode() in data for _, data in workspace.ledger.reader().tail())
    with workspace.tables.read() as connection:
        openings = connection.execute(select(ledger_opening.c.field, ledger_opening.c.value)).all()
    assert ("gateway.reset.reason", f'"{words}"') in openings
    with pytest.raises(InvalidInput, match="expected a reason"):
        reset_budget(workspace, replace(order, reason="  "), budgets.reset)


def test_entries_of_other_kinds_and_of_before_change_nothing(workspace):
    found = Book()
    for _, data in workspace.ledger.reader().tail():
        if b'"gateway.infer"' not in data and b'"gateway.embed"' not in data:
            found.read(data)
    assert not any(found.used.values())
