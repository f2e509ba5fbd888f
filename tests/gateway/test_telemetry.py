"""What an OpenTelemetry collector is told, read with the published schema: no text, no names, and only if asked."""

import asyncio
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import serving
from answers import CANARY, CLEAN, chunk, sse, whole
from serving import EVENTS, http, key_of

from stanch.errors import ExternalError, InvalidInput
from stanch.gateway.desk import Desk
from stanch.gateway.exchange import Exchange
from stanch.gateway.serve import build_gateway
from stanch.gateway.telemetry import Operation, Telemetry
from stanch.workspace import Workspace

schema = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="no opentelemetry-proto"
)
from google.protobuf.json_format import Parse  # noqa: E402 - after it is known to be there
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2  # noqa: E402 - same

KINDS = {"/v1/traces": schema.ExportTraceServiceRequest, "/v1/metrics": metrics_service_pb2.ExportMetricsServiceRequest}
ASK = {"model": "bot", "messages": [{"role": "user", "content": "A question of mine?"}]}
DONE = Operation("chat", "bot", "abc", ("", ""), 0.5, (3, 4), "allow")


class Collector(BaseHTTPRequestHandler):
    """Reads what it is sent as the schema says; unknown fields are errors."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status == 200:
            assert self.headers["Content-Type"] == "application/json"
            self.server.told.append((self.path, Parse(body, KINDS[self.path]()), body.decode()))
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        server.told, server.statuses, server.url = [], [], f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def spans(collector):
    groups = [one for path, told, _ in collector.told if path == "/v1/traces" for one in told.resource_spans]
    return [span for group in groups for scope in group.scope_spans for span in scope.spans]


def about(one):
    return {item.key: item.value.string_value or item.value.int_value for item in one.attributes}


def figures(collector):
    """Return count and sum of every histogram that was told last, by name and attributes."""
    (told,) = [told for path, told, _ in collector.told if path == "/v1/metrics"][-1:]
    metrics = [one for group in told.resource_metrics for scope in group.scope_metrics for one in scope.metrics]
    return {
        (one.name, *sorted(map(str, about(point).values()))): (point.count, point.sum)
        for one in metrics
        for point in one.histogram.data_points
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with Workspace.init(tmp_path_factory.mktemp("telemetry") / "w") as workspace:
        yield workspace, key_of(workspace, "a secretive program")


def test_each_answer_is_a_span_with_its_tokens_and_no_text(place, guard, collector):
    workspace, key = place
    usage = {"prompt_tokens": 5, "completion_tokens": 40}

    async def main():
        async with serving.serving(workspace, guard, key) as (client, server):
            client.app.desk = replace(client.app.desk, telemetry=Telemetry(f"{collector.url}/"))
            body = json.dumps(whole({"content": CLEAN}, usage=usage)).encode()
            server.answers += [
                http(body, "application/json"), http(sse(chunk({"content": CANARY}), chunk({}, "stop")), EVENTS),
                http(b"", status="500 No"),
            ]  # fmt: skip
            answers = [await client.ask(ASK | {"stream": stream}) for stream in (False, True, False)]
            await asyncio.to_thread(client.app.desk.telemetry.send)
            return [answer.headers["x-stanch-request"] for answer in answers]

    requests = asyncio.run(main())
    found = spans(collector)
    assert [about(span)["stanch.request.id"] for span in found] == requests
    assert [about(span).get("stanch.verdict") for span in found] == ["allow", "block", "allow"]
    assert [about(span).get("error.type") for span in found] == [None, None, "upstream_failed"]
    assert [(span.name, span.kind, span.status.code) for span in found] == [
        ("chat bot", 2, 0), ("chat bot", 2, 0), ("chat bot", 2, 2)
    ]  # fmt: skip
    first = about(found[0])
    assert (first["gen_ai.request.model"], first["gen_ai.usage.input_tokens"]) == ("bot", 5)
    assert first["gen_ai.usage.output_tokens"] == 40
    assert 0 < found[0].end_time_unix_nano - found[0].start_time_unix_nano < 60e9
    counted = figures(collector)
    assert counted["gen_ai.client.token.usage", "bot", "chat", "output", "stanch"][0] == 2
    assert counted["gen_ai.client.operation.duration", "bot", "chat", "stanch", "upstream_failed"][0] == 1
    everything = "".join(body for *_, body in collector.told)
    who = workspace.people.find("a secretive program")
    assert not [one for one in (CANARY, CLEAN[:20], "question of mine", "secretive", key, who) if one in everything]


@pytest.mark.parametrize(
    ("told", "ids"),
    [
        (b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01", ("ab" * 16, "cd" * 8)),
        (b"00-" + b"00" * 16 + b"-" + b"cd" * 8 + b"-01", ("", "")),
        (b"00-" + b"AB" * 16 + b"-" + b"cd" * 8 + b"-01", ("", "")),
        (b"my secret", ("", "")), (None, ("", "")),
    ],
)  # fmt: skip
def test_a_span_belongs_to_the_trace_that_the_client_names(told, ids, collector):
    headers = [] if told is None else [(b"traceparent", told)]
    parent = Exchange({"headers": headers}, None, None).trace
    assert parent == ids
    telemetry = Telemetry(collector.url)
    telemetry.note(DONE._replace(parent=parent))
    telemetry.send()
    (body,) = [json.loads(body) for path, _, body in collector.told if path == "/v1/traces"]
    (span,) = body["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert span.get("parentSpanId", "") == ids[1]
    assert (ids[0] or span["traceId"], len(bytes.fromhex(span["spanId"]))) == (span["traceId"], 8)


def test_what_the_collector_does_not_take_is_told_again_once(collector):
    telemetry = Telemetry(collector.url)
    telemetry.note(DONE)
    collector.statuses.append(503)
    with pytest.raises(ExternalError):
        telemetry.send()
    telemetry.note(DONE._replace(request="def"))
    telemetry.send()
    telemetry.send()
    assert [about(span)["stanch.request.id"] for span in spans(collector)] == ["abc", "def"]
    told = [told for path, told, _ in collector.told if path == "/v1/metrics"]
    assert len(told) == 3
    assert figures(collector)["gen_ai.client.token.usage", "bot", "chat", "input", "stanch"] == (2, 6.0)


def test_a_collector_without_traces_gets_the_figures_and_no_span_twice(collector):
    telemetry = Telemetry(collector.url)
    for number in (1, 2):
        telemetry.note(DONE)
        collector.statuses.append(404)
        with pytest.raises(ExternalError):
            telemetry.send()
        assert not telemetry._spans
        assert figures(collector)["gen_ai.client.token.usage", "bot", "chat", "input", "stanch"][0] == number


def test_a_collector_that_is_gone_for_long_costs_a_bounded_memory_and_no_answer():
    telemetry = Telemetry("http://127.0.0.1:9")
    for _ in range(5000):
        telemetry.note(DONE)
    with pytest.raises(ExternalError):
        telemetry.send()
    assert len(telemetry._spans) == 4096


def test_nobody_is_told_anything_unless_the_settings_name_somebody(place, tmp_path):
    workspace, _ = place
    assert Desk.of(workspace).telemetry is None
    Workspace.init(tmp_path / "w").close()
    path = tmp_path / "w" / "stanch.toml"
    path.write_text(path.read_text() + '\n[gateway]\notlp_endpoint = "http://collector.example:4318"\n')
    with Workspace.open(tmp_path / "w") as other:
        assert Desk.of(other).telemetry is not None
        with pytest.raises(InvalidInput, match="expected https"):
            build_gateway(other)
