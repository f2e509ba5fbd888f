"""The official clients of the newer dialects, before the gateway as a server, before a model's server over HTTP."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from answers import CLEAN, ROW, cut, leaks, whole
from saying import SAY, said_whole
from serving import DIALECTS, key_of
from test_serve import make, running, settings

from stanch.workspace import Workspace

openai = pytest.importorskip("openai", reason="openai is not installed")
for part in ("httptools", "uvicorn"):
    pytest.importorskip(part, reason=f"{part} is not installed: pip install 'stanch[gateway]'")

MEMORY = {"clean": CLEAN, "row": f"Patient Maria {ROW[14:]} End.", "call": '{"q": "rain"}', "canary": ""}
VECTOR = [0.25, -1.5, 3.0, 1e-3]


class Model(BaseHTTPRequestHandler):
    """A server of a model that recites what it memorised."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        dialect = self.path.rpartition("/")[2]
        if dialect == "completions":
            return self._chat(body)
        if dialect == "embeddings":
            data = [{"object": "embedding", "index": at, "embedding": VECTOR} for at in range(len(body["input"]))]
            return self._answer(json.dumps({"object": "list", "data": data}).encode(), "application/json")
        question = body["input"] if dialect == "responses" else body["messages"][-1]["content"]
        said = MEMORY[question]
        channel = {"responses": "output_text", "messages": "text"}[dialect]
        channel = "arguments" if question == "call" else channel
        if body.get("stream"):
            events = SAY[dialect](channel, cut(said, 7), "")
            stream = b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), json.dumps(one).encode())
                              for one in (events[:-2] if question == "cut" else events))  # fmt: skip
            return self._answer(stream, "text/event-stream; charset=utf-8")
        return self._answer(json.dumps(said_whole(dialect, channel, said)).encode(), "application/json")

    def _chat(self, body):
        """Reason, and call a tool; then answer."""
        if body["messages"][-1]["role"] == "tool":
            thought = body["messages"][1]["reasoning_content"]
            message, why = {"content": f"You thought: {thought}"}, "stop"
        else:
            message = said_whole("chat", "arguments", '{"q": "rain"}')["choices"][0]["message"]
            message, why = message | {"content": None, "reasoning_content": "Rain?", "reasoning": "Rain?"}, "tool_calls"
        self._answer(json.dumps(whole(message, why)).encode(), "application/json")

    def _answer(self, data, media):
        self.send_response(200)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients") / "w"
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        text = settings(f"http://127.0.0.1:{server.server_port}")
        more = f"dimensions = 4\ndialects = {json.dumps(DIALECTS)}\n"
        MEMORY["canary"] = f"It is {make(folder, text + more)}, they say."
        MEMORY["cut"] = CLEAN
        with Workspace.open(folder) as workspace, running(workspace) as url:
            yield url, key_of(workspace, "program")
        server.shutdown()


@pytest.fixture
def client(place):
    url, key = place
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as made:
        yield made


@pytest.fixture
def messages(place):
    anthropic = pytest.importorskip("anthropic", reason="anthropic is not installed")
    url, key = place
    with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0) as made:
        yield made.messages


def responded(client, question, stream):
    tools = [{"type": "function", "name": "search", "parameters": {}}]
    asked = {"model": "bot", "input": question, "tools": tools}
    if not stream:
        return client.responses.create(**asked)
    with client.responses.stream(**asked) as events:
        for _ in events:
            pass
        # On `response.incomplete` the helper has no final response, though its snapshot is one.
        with contextlib.suppress(RuntimeError):
            return events.get_final_response()
    return [one.response for one in client.responses.create(**asked, stream=True) if hasattr(one, "response")][-1]


@pytest.mark.parametrize("stream", [True, False])
def test_the_openai_client_reads_responses(client, stream):
    answer = responded(client, "clean", stream)
    assert (answer.output_text, answer.status, answer.model) == (CLEAN, "completed", "bot")
    (call,) = responded(client, "call", stream).output
    asked_for = '{"q": "rain"}'
    assert (call.type, call.name, call.arguments) == ("function_call", "search", asked_for)
    for question in ("row", "canary"):
        answer = responded(client, question, stream)
        assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "content_filter")
        assert not leaks(answer.output_text)
        assert MEMORY["canary"][8:16] not in answer.output_text


def test_the_openai_client_is_refused_what_a_server_would_keep(client):
    for more in ({"store": True}, {"previous_response_id": "x"}, {"background": True}):
        with pytest.raises(openai.BadRequestError):
            client.responses.create(model="bot", input="clean", **more)
    with pytest.raises(openai.APIError):
        list(client.responses.create(model="bot", input="cut", stream=True))


def test_the_openai_client_reads_embeddings(client):
    for more in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        answer = client.embeddings.create(model="bot", input=["a", "b"], **more)
        shown = [one.embedding for one in answer.data]
        if more.get("encoding_format") != "base64":
            assert shown == [pytest.approx(VECTOR)] * 2


def said(messages, question, stream):
    tools = [{"name": "search", "input_schema": {"type": "object"}}]
    asked = {"model": "bot", "max_tokens": 99, "messages": [{"role": "user", "content": question}], "tools": tools}
    if not stream:
        return messages.create(**asked)
    with messages.stream(**asked) as events:
        return events.get_final_message()


@pytest.mark.parametrize("stream", [True, False])
def test_the_anthropic_client_reads_messages(messages, stream):
    answer = said(messages, "clean", stream)
    assert (answer.content[0].text, answer.stop_reason, answer.model) == (CLEAN, "end_turn", "bot")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (9, 40)
    (call,) = said(messages, "call", stream).content
    assert (call.type, call.name) == ("tool_use", "search")
    assert call.input in ({"q": "rain"}, {"q": '{"q": "rain"}'})
    for question in ("row", "canary"):
        answer = said(messages, question, stream)
        assert answer.stop_reason == "refusal"
        shown = "".join(block.text for block in answer.content)
        assert not leaks(shown)
        assert MEMORY["canary"][8:16] not in shown


def test_the_anthropic_client_is_told_of_a_failure_and_of_a_wrong_key(place, messages):
    import anthropic  # noqa: PLC0415 - the fixture skips where it is missing

    with pytest.raises(anthropic.APIError):
        said(messages, "cut", stream=True)
    with (
        anthropic.Anthropic(base_url=place[0], api_key="stk_wrong", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        said(client.messages, "clean", stream=False)


def test_an_answer_of_the_gateway_is_taken_back_in_the_next_turn(client):
    tools = [{"type": "function", "function": {"name": "search"}}]
    said = [{"role": "user", "content": "Will it rain?"}]
    first = client.chat.completions.create(model="bot", messages=said, tools=tools).choices[0].message
    assert first.reasoning_content == "Rain?"
    call = first.tool_calls[0]
    said += [first, {"role": "tool", "tool_call_id": call.id, "content": "No."}]
    second = client.chat.completions.create(model="bot", messages=said, tools=tools).choices[0].message
    assert second.content == "You thought: Rain?"
    # As who reads a stream puts the call together.
    said[1] = first.model_dump(exclude_unset=True) | {
        "tool_calls": [call.model_dump(exclude_unset=True) | {"index": 0}]
    }
    client.chat.completions.create(model="bot", messages=said, tools=tools)


def test_the_query_of_the_beta_api_says_nothing(messages):
    asked = {"model": "bot", "max_tokens": 99, "messages": [{"role": "user", "content": "clean"}]}
    assert messages.create(**asked, extra_query={"beta": "true"}).content[0].text == CLEAN
    anthropic = pytest.importorskip("anthropic")
    with pytest.raises(anthropic.BadRequestError, match="query"):
        messages.create(**asked, extra_query={"beta": "false"})
