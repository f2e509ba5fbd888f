"""A black box: the same scores through an HTTP server that runs the tiny model, and servers that answer nonsense."""

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
import transformers

from stanch.audit.endpoint import Endpoint, EndpointScorer
from stanch.audit.hf_torch import HfScorer
from stanch.audit.params import AuditParams, Decoding
from stanch.audit.run import AuditInput, audit
from stanch.data import tokenise
from stanch.errors import ExternalError, InvalidInput

KEY = "a-key-of-this-test"


class Served:
    """Answers ``/v1/completions`` as OpenAI's legacy interface does: ids in, text and log-probabilities out."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.change = lambda answer: answer
        self.statuses, self.asked = [], []

    def answer(self, body):
        return {"choices": [self._choice(n, ids, body) for n, ids in enumerate(body["prompt"])][::-1]}

    def _choice(self, index, ids, body):
        with torch.no_grad():
            out = self.model.generate(
                torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
                max_new_tokens=body["max_tokens"], pad_token_id=0,
            )[0]  # fmt: skip
            choice = {"index": index, "text": self.tokenizer.decode(out[len(ids) :])}
            if body.get("echo"):
                logprobs = self.model(out[None]).logits[0].float().log_softmax(1)
                own, tops = [None], [None]
                for place in range(1, len(out)):
                    row = logprobs[place - 1]
                    own.append(float(row[out[place]]))
                    best = row.topk(body["logprobs"])
                    tops.append({f"t{i}": v for i, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)})
                    tops[-1][f"t{int(out[place])}"] = own[-1]
                choice["logprobs"] = {"token_logprobs": own, "top_logprobs": tops}
        return choice


@pytest.fixture(scope="module")
def served(tiny):
    model = transformers.LlamaForCausalLM.from_pretrained(tiny.tuned).eval()
    return Served(model, tiny.tokenizer)


@pytest.fixture(scope="module")
def url(served):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append((self.path, self.headers["Authorization"], body["model"]))
            status = served.statuses.pop() if served.statuses else 200
            data = json.dumps(served.change(served.answer(body))).encode() if status == 200 else b"{}"
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def scorer(tiny, served, url):
    served.change, served.statuses, served.asked = (lambda answer: answer), [], []
    return EndpointScorer(Endpoint(url, "tiny", KEY, top_logprobs=40), tiny.tokenizer, pause=lambda _: None)


@pytest.fixture(scope="module")
def records(tiny):
    return [tokenise(record, tiny.tokenizer) for record in tiny.members[:5]]


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(top_k=7, temperature=0.6)])
def test_figures_are_those_of_the_model_itself(tiny, scorer, records, served, decoding):
    own = {f.record_id: f for f in HfScorer(tiny.tuned).features(records, decoding=decoding)}
    found = list(scorer.features(records, decoding=decoding))
    assert len(found) == len(records)
    for features in found:
        expected = own[features.record_id]
        np.testing.assert_allclose(features.lp, expected.lp, atol=1e-4)
        np.testing.assert_allclose(features.lq, expected.lq, atol=1e-4)
        assert (features.hit == expected.hit).all()
        assert np.isnan(features.mu).all()
    assert set(served.asked) == {("/v1/completions", f"Bearer {KEY}", "tiny")}
    assert KEY not in repr(scorer._endpoint)


def test_plain_sampling_needs_no_list_of_tokens_and_other_decodings_do(tiny, url, records):
    few = EndpointScorer(Endpoint(url, "tiny", top_logprobs=1), tiny.tokenizer)
    for features in few.features(records, decoding=few.sampling):
        assert (features.lq == features.lp).all()
    with pytest.raises(InvalidInput, match="40 likeliest tokens, the server gives 1"):
        list(few.features(records, decoding=Decoding()))


def test_audit_of_a_black_box_finds_the_planted_rows_and_says_what_was_not_run(tiny, scorer):
    params = AuditParams(decoding=scorer.sampling, exposure_candidates=19, exposure_secrets=1, reconstruction_values=0)
    rows = [record for record in tiny.members if record.id[0] in "po"][:18]
    result = audit(scorer, base=HfScorer(tiny.base), material=AuditInput(members=rows), params=params)
    assert len({row.record_id for row in result.extracted if row.attributable} & tiny.planted) >= 15
    assert result.report.model is None
    assert set(result.table.scores) == {"ratio/1", "suffix_loss/1", "ez/1", "zlib/1", "wbc/1"}
    assert any("asked over a network" in limit for limit in result.report.limits)


def test_completions_are_the_likeliest_tokens(tiny, scorer):
    record = next(tokenise(r, tiny.tokenizer) for r in tiny.members if r.id in tiny.planted)
    start = record.span[0] + 3
    ((_, served),) = scorer.complete([record.ids[:start]], 10)
    ((_, own),) = HfScorer(tiny.tuned).complete([record.ids[:start]], 10)
    assert served == own == record.ids[start : start + 10]


def test_a_busy_server_is_asked_again_and_a_broken_one_is_not(scorer, served, records):
    served.statuses = [429, 503]
    assert len(list(scorer.features(records[:1], decoding=scorer.sampling))) == 1
    assert len(served.asked) == 3
    served.statuses = [404]
    with pytest.raises(ExternalError, match="status 404"):
        list(scorer.features(records[:1], decoding=scorer.sampling))
    served.statuses = [503] * 9
    with pytest.raises(ExternalError, match="status 503"):
        list(scorer.features(records[:1], decoding=scorer.sampling))


def drop(answer, *path):
    part = answer["choices"][0]
    for name in path[:-1]:
        part = part[name]
    del part[path[-1]]
    return answer


def put(value):
    def change(answer):
        answer["choices"][0]["logprobs"]["token_logprobs"][-2] = value
        return answer

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer | {"choices": []},
        lambda answer: {"choices": answer["choices"] * 2},
        list,
        lambda answer: drop(answer, "index"),
        lambda answer: drop(answer, "logprobs"),
        lambda answer: drop(answer, "logprobs", "top_logprobs"),
        lambda answer: drop(answer, "logprobs", "token_logprobs", 1),
        put(None),
        put(True),
        put("-1"),
        put(0.5),
        put(math.nan),
        put(math.inf),
    ],
)
def test_nonsense_is_refused(scorer, served, records, change):
    served.change = change
    with pytest.raises((ExternalError, InvalidInput)):
        list(scorer.features(records[:1], decoding=scorer.sampling))


def test_what_an_endpoint_cannot_do_is_refused(scorer, records):
    assert not scorer.white_box
    with pytest.raises(InvalidInput, match="no adapter"):
        list(scorer.features(records, decoding=scorer.sampling, adapter="off"))
    with pytest.raises(InvalidInput, match="no adapter"):
        list(scorer.paired_features(records, decoding=scorer.sampling))
    with pytest.raises(InvalidInput, match="whole distribution"):
        scorer.continuations([1, 2])
    with pytest.raises(InvalidInput, match="https"):
        Endpoint("http://models.example/v1", "m")
