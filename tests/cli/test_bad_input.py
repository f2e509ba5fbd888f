"""Bad input for every command: one clear error, the documented exit code, and the workspace as it was."""

import life
import pytest

import stanch.errors as errors_module
from stanch.cli.commands import COMMANDS

# Words in braces are files of the fixture; the number is the exit code; the text stands in the error.
RESEAL = "--trust {sign_pub_pem} --sign-key {sign_pem} --out {out}"
CASES = [
    ("init {text}", 2, "cannot be written|is a file"),
    ("init {w}", 2, "holds a workspace already"),
    ("init {out} --owner ../me", 2, "not a key name"),
    ("init {out} --owner-passphrase-file {missing}", 2, "cannot be read"),
    ("status --as nobody", 3, "no local key"),
    ("doctor nonsense", 2, "nonsense"),
    ("config show nonsense", 2, "no setting nonsense"),
    ("scan {missing}", 2, "missing"),
    ("scan {empty}", 2, "empty"),
    ("scan {unreadable}", 2, "unreadable.jsonl:2"),
    ("scan {no_model}", 2, "no-model"),
    ("scan {data} --redact {data}", 2, ""),
    ("scan {data} --fail-on nonsense", 2, "nonsense"),
    ("scan {data} --min-score 2", 2, "2"),
    ("scan {data} --engine dask", 2, "there is no 'dask'"),
    ("scan {data} --policy {missing}", 2, "missing"),
    ("scan {data} --policy {text}", 2, "not valid TOML"),
    ("scan {data} --operator nonsense", 2, "nonsense"),
    ("scan {data} --operator vault --redact {out}", 2, "--vault FILE"),
    ("scan {data} --vault {out} --redact {out}.b", 2, "recipient"),
    ("scan {data} --vault-to {recipient} --redact {out}", 2, "--vault"),
    ("scan {data} --vault {out} --vault-to nonsense --redact {out}.b", 2, "recipient"),
    ("scan {data} --vault {out} --vault-to {recipient}", 2, "--redact"),
    ("scan {data} --vault {text} --vault-to {recipient} --redact {out}", 2, "exists already"),
    ("data dictionary build {missing} --out {out}", 2, "missing"),
    ("data dictionary build {empty} --out {out}", 2, "1 to"),
    ("data dictionary build {text} --out {text}", 2, "exists already"),
    ("data dictionary build {text} --key {missing} --out {out}", 2, "missing"),
    ("data dictionary build {text} --key {acme_key} --out {out}", 2, "32 bytes"),
    ("data dictionary build {text} --label Nonsense --out {out}", 2, "label"),
    ("data vault open {missing} --identity {acme_key} --pseudonym {name}", 2, "missing"),
    ("data vault open {text} --identity {acme_key} --pseudonym {name}", 2, "text.json"),
    ("data vault open {acme_key} --identity {acme_key} --pseudonym {name}", 2, "expected a vault"),
    ("data vault open {text} --identity {missing} --pseudonym {name}", 2, "missing"),
    ("data vault open {text} --identity {acme_key} --pseudonym secretvalue", 2, "expected <KIND:"),
    ("scan {data} --rules {missing}", 2, "cannot be read"),
    ("scan {data} --rules {text}", 2, "not a gitleaks rule file"),
    ("data manifest {missing}", 2, "missing"),
    ("data manifest {unreadable}", 2, "unreadable.jsonl:2"),
    ("data dedup {empty} --out {out}", 2, "empty"),
    ("data dedup {unreadable} --out {out}", 2, "unreadable.jsonl:2"),
    ("data dedup {data} --engine dask --out {out}", 2, "there is no 'dask'"),
    ("data split {missing} --members {out}.a --held-out {out}.b", 2, "missing"),
    ("data split {data} --holdout 1 --members {out}.a --held-out {out}.b", 2, "1"),
    ("data canaries plan {missing} --tokenizer {base} --out {out}", 2, "missing"),
    ("data canaries plan {data} --tokenizer {no_model} --out {out}", 2, ""),
    ("data canaries inject {data} --plan {missing} --out {out}", 2, "missing"),
    ("data canaries inject {data} --plan {text} --out {out}", 2, ""),
    ("data index build {missing} --out {out}", 2, "missing"),
    ("data index build {data} --window huge --out {out}", 2, "huge"),
    ("data index build {data} --engine dask --out {out}", 2, "there is no 'dask'"),
    ("data index build {data} --for-chars 0 --out {out}", 2, "0"),
    ("data index build {data} --for-chars 9 --like {index} --out {out}", 2, "not both"),
    ("data index build {data} --like {text} --out {out}", 1, "not a span index"),
    ("data index build {data} --like {missing} --out {out}", 2, "missing"),
    ("data index build {data} --public {missing} --out {out}", 2, "missing"),
    ("data index query {missing} {text}", 2, "missing"),
    ("data index query {text} {text}", 1, "not a span index"),
    ("data index query {index} {missing}", 2, "missing"),
    ("data index merge {missing} --out {out}", 2, "missing"),
    ("data index merge {index} {text} --out {out}", 1, "not a span index"),
    ("data index merge --out {out}", 2, "PART"),
    ("data repeats {missing}", 2, "missing"),
    ("data repeats {unreadable}", 2, "unreadable.jsonl:2"),
    ("data repeats {data} --min-chars 5", 2, "5"),
    ("tune run {missing}", 2, "missing"),
    ("tune run {text}", 2, "text.json"),
    ("tune run {missing} --anchor 1:2:3", 2, "missing"),
    ("tune plan {missing}", 2, "missing"),
    ("tune plan {text} --epsilon 0", 2, "0"),
    ("tune statement {missing}", 2, "missing"),
    ("tune verify {missing} --anchor 1:2:3", 2, "journal head"),
    ("tune verify {missing}", 2, "missing"),
    ("tune verify {no_model}", 2, "no-model"),
    ("tune fetch-model gpt5", 2, "gpt5"),
    ("audit run {missing} --out {out}", 2, "expected a model folder"),
    ("audit run {no_model} --out {out}", 2, "no-model"),
    ("audit run {model} --plan {missing} --out {out}", 2, "missing"),
    ("audit run {model} --plan {text} --out {out}", 2, ""),
    ("audit run {model} --data {empty} --out {out}", 2, "empty"),
    ("audit run {model} --holdout {unreadable} --out {out}", 2, "unreadable.jsonl:2"),
    ("audit gate {model} --cert {missing}", 2, "missing"),
    ("audit gate {model} --cert {text}", 2, "text.json"),
    ("audit gate {model} --cert {report_json}", 2, "report.json"),
    ("audit gate {missing} --cert {cert_json}", 2, "missing"),
    ("audit gate {model} --cert {cert_json} --policy {missing}", 2, "missing"),
    ("audit gate {model} --cert {cert_json} --policy {text}", 2, "text.json"),
    ("audit scores {missing}", 2, "missing"),
    ("audit scores {text}", 2, "text.json"),
    ("audit verify {missing}", 2, "missing"),
    ("audit verify {text}", 2, "text.json"),
    ("audit verify {report_json} --scores {missing}", 2, "missing"),
    ("audit verify {report_json} --scores {wrong_scores_csv}", 1, ""),
    ("release propose {missing} --name x --cert {cert_json} --to acme={recipient}", 2, "missing"),
    ("release propose {model} --name x --cert {missing} --to acme={recipient}", 2, "missing"),
    ("release propose {model} --name x --cert {cert_json} --to acme=nonsense", 2, ""),
    ("release propose {model} --name x --cert {cert_json} --to acme", 2, "NAME=RECIPIENT"),
    ("release propose {model} --name x --cert {cert_json} --to a={recipient} --to a={recipient}", 2, "once"),
    ("release propose {model} --name ../x --cert {cert_json} --to acme={recipient}", 2, "not a release name"),
    ("release propose {model} --name r1 --cert {cert_json} --to acme={recipient}", 2, "exists already"),
    ("release propose {no_model} --name x --cert {cert_json} --to acme={recipient}", 2, "no-model"),
    ("release approve missing --to acme --identity {acme_key}", 2, "no release"),
    ("release approve r1 --to nobody --identity {acme_key}", 2, "was not proposed for"),
    ("release approve r1 --to acme --identity {acme_key}", 2, "no copy for 'acme' was made yet"),
    ("release approve r1 --to acme --identity {acme_key} --out {text}", 2, "exists already"),
    ("release approve-offline {missing} --trust {sign_pub_pem} --identity {acme_key} --key {owner} --out {out}", 2,
     "missing"),
    ("release approve-offline {text} --trust {sign_pub_pem} --identity {acme_key} --key {owner} --out {out}", 2,
     "text.json"),
    ("release redeem {sealed} --identity {acme_key} --trust {sign_pub_pem}", 2, "quorum.json"),
    ("release redeem {sealed} --identity {acme_key} --trust {sign_pub_pem} --quorum {missing}", 2, "quorum.json"),
    ("release redeem {sealed} --identity {missing} --trust {sign_pub_pem}", 2, "missing"),
    ("access key register nonsense", 2, "stanch1"),
    ("access key register {recipient}x", 2, "recipient"),
    ("release create missing --to acme --out {out}", 2, "no release"),
    ("release create r1 --to nobody --out {out}", 2, "was not proposed for"),
    ("release create r1 --to acme --out {base}", 2, "exists already"),
    ("release create r1 --to acme --approver owner --out {out}", 2, "solo"),
    ("release create r1 --to acme --policy {text} --out {out}", 2, "text.json"),
    ("release open {missing} --identity {acme_key} --trust {sign_pub_pem}", 1, ""),
    ("release open {model} --identity {acme_key} --trust {sign_pub_pem}", 1, ""),
    ("release open {truncated} --identity {acme_key} --trust {sign_pub_pem}", 1, ""),
    ("release open {sealed} --identity {missing} --trust {sign_pub_pem}", 2, "missing"),
    ("release open {sealed} --identity {acme_key} --trust {missing}", 2, "missing"),
    ("release open {sealed} --identity {acme_key} --trust {text}", 2, "text.json"),
    ("release open {sealed} --identity {other_key} --trust {sign_pub_pem}", 1, ""),
    ("release open {sealed} --identity {acme_key} --trust {other_pub_pem}", 1, ""),
    ("release open {sealed} --identity {locked_key} --trust {sign_pub_pem}", 3, "locked"),
    ("release open {sealed} --identity {acme_key} --trust {sign_pub_pem} --revocations {missing}", 2, "missing"),
    ("release open {sealed} --identity {acme_key} --trust {sign_pub_pem} --revocations {text}", 2, ""),
    ("release deliver {missing} file:{out} --trust {sign_pub_pem}", 1, ""),
    ("release deliver {truncated} file:{store} --trust {sign_pub_pem}", 3, "gate"),
    ("release deliver {sealed} file:{out}", 1, ""),
    ("release deliver {sealed} file:{out} --trust {other_pub_pem}", 1, ""),
    ("release deliver {sealed} file:{out} --trust {missing}", 2, "missing"),
    ("release deliver {sealed} ftp:{out} --trust {sign_pub_pem}", 3, "gate"),
    ("release fetch {store_uri} --trust {other_pub_pem} --out {out}", 1, ""),
    ("release fetch {store_uri} --trust {missing} --out {out}", 2, "missing"),
    ("release fetch {store_uri} --trust {sign_pub_pem} --out {base}", 4, "exists already"),
    ("release fetch {store_uri} --trust {sign_pub_pem} --min-release 9 --out {out}", 1, "release 9 or later"),
    ("release fetch {store_uri} --trust {sign_pub_pem} --revocations {text} --out {out}", 2, ""),
    ("release fetch {text} --trust {sign_pub_pem} --out {out}", 2, "URI of a delivered bundle"),
    ("release fetch file:{missing}/{zeros} --trust {sign_pub_pem} --out {out}", 2, "no such folder"),
    ("release fetch file:{store}/{zeros} --trust {sign_pub_pem} --out {out}", 1, "missing in the store"),
    ("release revoke {store_uri} nobody --sign-key {sign_pem} --reason left", 2, "recipient: expected"),
    (f"release revoke {{store_uri}} x25519:{'0' * 32} --sign-key {{sign_pem}} --reason left", 2, "not a recipient"),
    ("release revoke {store_uri} stanch1-x --sign-key {sign_pem} --reason left", 2, ""),
    ("release revoke {store_uri} {recipient} --sign-key {missing} --reason left", 2, "missing"),
    ("release revoke {store_uri} {recipient} --sign-key {sign_pem} --trust {missing} --reason left", 2, "missing"),
    ("key new --out {text}", 2, "exists already"),
    ("key new --kind rsa --out {out}", 2, "rsa"),
    ("key new --kind sign --algorithm rsa --out {out}", 2, "rsa"),
    ("key new --algorithm p384 --out {out}", 2, "keys that sign"),
    ("key new --out {out} --new-passphrase-file {missing}", 2, "missing"),
    ("key new --kind hybrid --out {text}", 2, "exists already"),
    ("key show {missing}", 2, "missing"),
    ("key rotate dataset", 2, "not rotated"),
    ("key list nonsense", 2, "nonsense"),
    ("key show {text}", 2, "text.json"),
    ("seal create {missing} --to {recipient} --sign-key {sign_pem} --lineage l --out {out}", 2, "missing"),
    ("seal create {model} --to nonsense --sign-key {sign_pem} --lineage l --out {out}", 2, ""),
    ("seal create {model} --to {recipient} --sign-key {missing} --lineage l --out {out}", 2, "missing"),
    ("seal create {model} --to {recipient} --sign-key {sign_pem} --segment-hash md5 --lineage l --out {out}", 2, "md5"),
    ("seal create {model} --to {recipient} --sign-key {sign_pem} --sign-key {sign_pem} --lineage l --out {out}", 2,
     "different signing keys"),
    ("seal create {model} --to {recipient} --sign-key {sign_pub_pem} --lineage l --out {out}", 2, "sign.pub.pem"),
    ("seal create {no_model} --to {recipient} --sign-key {sign_pem} --lineage l --out {out}", 2, "no file"),
    ("seal create {model} --to {recipient} --sign-key {sign_pem} --lineage l --out {base}", 4, "exists"),
    ("seal verify {missing} --trust {sign_pub_pem}", 1, ""),
    ("seal verify {truncated} --trust {sign_pub_pem}", 1, ""),
    ("seal verify {sealed} --trust {other_pub_pem}", 1, ""),
    ("seal verify {sealed} --trust {missing}", 2, "missing"),
    ("seal verify {sealed} --trust {sign_pub_pem} --identity {acme_key}", 2, "go together"),
    ("seal verify {sealed} --trust {sign_pub_pem} --identity {acme_key} --signature-out {out}", 2, "bundle alone"),
    ("seal ls {missing}", 1, ""),
    ("seal ls {model}", 1, ""),
    ("seal rekey {sealed} --trust {other_pub_pem} --identity {acme_key} --add {recipient}", 1, ""),
    ("seal rekey {sealed} --trust {sign_pub_pem} --identity {other_key} --add {recipient}", 1, ""),
    ("seal rekey {sealed} --trust {sign_pub_pem} --identity {acme_key} --add nonsense", 2, ""),
    (f"seal reseal {{missing}} {RESEAL} --identity {{acme_key}} --to {{recipient}}", 1, ""),
    (f"seal reseal {{truncated}} {RESEAL} --identity {{acme_key}} --to {{recipient}}", 1, ""),
    (f"seal reseal {{sealed}} {RESEAL} --identity {{other_key}} --to {{recipient}}", 1, ""),
    (f"seal reseal {{sealed}} {RESEAL} --identity {{acme_key}} --to nonsense", 2, ""),
    (f"seal reseal {{sealed}} {RESEAL} --identity {{acme_key}} --to {{recipient}} --sign-key {{missing}}", 2, ""),
    (f"seal reseal {{sealed}} {RESEAL} --identity {{acme_key}} --to {{recipient}} --out {{base}}", 4, "exists already"),
    ("seal unseal-unsafe {truncated} --trust {sign_pub_pem} --identity {acme_key} --out {out}", 1, ""),
    ("seal unseal-unsafe {sealed} --trust {sign_pub_pem} --identity {other_key} --out {out}", 1, ""),
    ("sign", 2, "command is missing"),
    ("sign create {missing} --key {sign_pem}", 2, "missing"),
    ("sign create {model} --key {missing}", 2, "missing"),
    ("sign create {model} --key {sign_pub_pem}", 2, "sign.pub.pem"),
    ("sign create {model} --key {sign_pem} --out {text}", 2, "exists already"),
    ("sign create {model} --key {sign_pem} --out {model}/x.sig", 2, "lies in the folder"),
    ("sign create {no_model} --key {sign_pem}", 2, "found none"),
    ("sign verify {missing} --trust {sign_pub_pem}", 2, "missing"),
    ("sign verify {model} --trust {missing}", 2, "missing"),
    ("sign verify {model} --trust {text}", 2, "text.json"),
    ("sign verify {model} --trust {sign_pub_pem}", 1, "model.sig"),
    ("sign verify {model} --trust {sign_pub_pem} --signature {text}", 2, "text.json"),
    ("sign verify {model} --trust {sign_pub_pem} --signature {cert_json}", 1, "no trusted signature"),
    ("sign intake {missing}", 2, "missing"),
    ("sign verify {model} --trust {sign_pub_pem} --timestamp-roots {missing}", 2, "missing"),
    ("sign verify {model} --trust {sign_pub_pem} --timestamp-roots {text}", 2, "text.json"),
    ("sign timestamp {missing} --tsa https://tsa.invalid --roots {missing}", 2, "missing"),
    ("sign timestamp {missing} --tsa https://tsa.invalid --roots {sign_pub_pem}", 2, "sign.pub.pem"),
    ("sign provenance {missing} --key {sign_pem} --out {out}", 2, "missing"),
    ("sign provenance {no_model} --key {sign_pem} --out {out}", 2, "no-model"),
    ("sign provenance {no_model} --key {sign_pem} --out {text}", 2, "exists already"),
    ("seal create {model} --to passphrase: --sign-key {sign_pem} --lineage l --out {out}", 3, "passphrase:FILE"),
    ("seal create {model} --to passphrase:{missing} --sign-key {sign_pem} --lineage l --out {out}", 2, "missing"),
    ("seal create {model} --to pkcs11:token=a --sign-key {sign_pem} --lineage l --out {out}", 2, "PKCS#11"),
    ("seal create {model} --to stanch1-hybrid-AA --sign-key {sign_pem} --lineage l --out {out}", 2, "checksum"),
    ("seal rekey {sealed} --trust {sign_pub_pem} --identity {text} --add {recipient}", 2, "text.json"),
    ("seal doctor {missing}", 1, ""),
    ("seal doctor {model}", 1, ""),
    ("seal shred {sealed} --trust {sign_pub_pem} --key {acme_key} --out {out}", 2, "--keys-open-nothing-else"),
    ("seal shred {sealed} --trust {sign_pub_pem} --key {acme_key} --keys-open-nothing-else --out {out}", 2, "token"),
    ("seal shred {sealed} --trust {sign_pub_pem} --key {acme_key} --keys-open-nothing-else --out {text}", 2, "text"),
    ("seal shred {sealed} --trust {other_pub_pem} --key {acme_key} --keys-open-nothing-else --out {out}", 1, ""),
    ("seal shred {sealed} --trust {sign_pub_pem} --key {missing} --keys-open-nothing-else --out {out}", 2, "missing"),
    ("release propose {model} --name x --cert {cert_json} --to acme=passphrase:", 2, "no recipient here"),
    ("access add new --role nonsense", 2, "nonsense"),
    ("access add ../new", 2, "not a key name"),
    ("access add owner", 2, "exists already"),
    ("access grant nobody auditor", 2, "0 principals"),
    ("access grant owner nonsense", 2, "nonsense"),
    ("access revoke g_nothing", 2, "g_nothing|no grant"),
    ("migrate --nonsense", 2, "nonsense"),
    ("access why owner nonsense", 2, "nonsense"),
    ("access why owner log:read {missing}", 2, "missing"),
    ("log verify --vkey nonsense", 2, ""),
    ("log show --limit 0", 2, "0"),
    ("log prove 999999", 2, "999999"),
    ("inventory {place} --model {missing}", 2, "missing"),
    ("inventory {missing} --model {model}", 2, "missing"),
    ("inventory --model {model}", 2, "nothing to do"),
    ("inventory {place}", 2, "expected one of"),
    ("inventory {place} --model {model} --fingerprint {text}", 2, "expected one of"),
    ("inventory {place} --fingerprint {text}", 2, "text.json"),
    ("inventory {place} --fingerprint {missing}", 2, "missing"),
    ("inventory {place} --bundle {sealed}", 2, "--trust"),
    ("inventory {place} --bundle {sealed} --trust {other_pub_pem} --identity {acme_key}", 1, ""),
    ("inventory {place} --bundle {truncated} --trust {sign_pub_pem} --identity {acme_key}", 1, ""),
    ("inventory {place} --model {no_model}", 2, "safetensors"),
    ("inventory {place} --model {model} --base {model}", 2, "nothing is left"),
    ("inventory {place} --model {model} --base {missing}", 2, "missing"),
    ("inventory --model {model} --save {text}", 2, "exists already"),
    ("inventory s3:// --model {model}", 2, "bucket"),
    ("guard", 2, "command is missing"),
    ("guard check {missing}", 2, "missing"),
    ("guard check {unreadable}", 2, "line 2"),
    ("guard check {data} --index {missing}", 2, "missing"),
    ("guard check {data} --index {text}", 1, "text.json"),
    ("guard check {data} --canaries {missing}", 2, "missing"),
    ("guard check {data} --canaries {text}", 2, ""),
    ("trace", 2, "command is missing"),
    ("trace run {missing} --release r1", 2, "missing"),
    ("trace run {empty} --release r1", 2, "empty"),
    ("trace run {no_model} --release r1", 2, "no-model"),
    ("trace run {model} --release missing", 2, "no release"),
    ("trace run {model} --release r1 --case ../x", 2, ""),
    ("trace pack missing --out {out}", 2, "missing"),
    ("trace verify {missing} --key {sign_pub_pem} --log nonsense", 2, "missing"),
    ("trace verify {text} --key {missing} --log nonsense", 2, "missing"),
    ("trace verify {text} --key {sign_pub_pem} --log nonsense", 1, ""),
    ("demo --nonsense", 2, "nonsense"),
    ("demo --model gpt5 {out}", 2, "gpt5"),
    ("demo --model tiny {model}", 2, "holds no demo"),
    ("demo --model tiny {text}", 2, "text.json"),
    ("--nonsense", 2, "nonsense"),
    ("nonsense", 2, "No such command"),
]  # fmt: skip


def outside_of(files):
    """Return what lies beside the workspace, but for the memory of releases seen, which a refused one may enter."""
    return [name for name in life.tree(files.place) if ".releases" not in name and not name.startswith("w/")]


def words_of(line, files):
    return line.format(**vars(files)).split(" ")


def test_every_command_has_a_case():
    assert {line.split()[0] for line, _, _ in CASES} >= set(COMMANDS)


@pytest.mark.parametrize(("line", "code", "said"), CASES, ids=lambda value: value if isinstance(value, str) else None)
def test_bad_input(line, code, said, stanch, files, unchanged):
    watch, outside = unchanged(files.w), outside_of(files)
    shown = stanch("--workspace", files.w, *words_of(line, files))
    assert shown.code == code, shown
    assert shown.out == ""
    labels = [text.split(" ")[0] for text in shown.err.splitlines()]
    assert labels[0] == "error:", shown.err
    assert labels[1:] in (["why:", "next:"], ["why:"], ["next:"], []), shown.err
    assert any(word in shown.err for word in said.split("|")), shown.err
    assert "Traceback" not in shown.err
    assert "secret of row two" not in shown.err
    watch.check()
    assert outside_of(files) == outside
    assert not list(files.out.parent.glob("out*"))


@pytest.mark.parametrize(
    ("line", "code"),
    [(CASES[index][0], CASES[index][1]) for index in range(0, len(CASES), 6)],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bad_input_as_json_is_one_object(line, code, stanch, files):
    shown = stanch("--json", "--workspace", files.w, *words_of(line, files))
    answer = shown.json
    assert set(answer) == {"schema", "command", "ok", "exit", "error", "warnings"}
    assert (answer["schema"], answer["ok"], answer["exit"], shown.code) == ("stanch.cli/1", False, code, code)
    assert set(answer["error"]) == {"slug", "what", "why", "next"}
    assert answer["error"]["what"]
    assert shown.err == ""


NEEDS_WORKSPACE = [
    "status", "key list", "key rotate case", "scan {data}", "data manifest {data}", "data dedup {data} --out {out}",
    "data canaries plan {data} --tokenizer {base} --out {out}", "audit gate {model} --cert {cert_json}",
    "release approve r1 --to acme --identity {acme_key}", "access who", "log verify", "log show", "log prove 0",
]  # fmt: skip


@pytest.mark.parametrize("line", NEEDS_WORKSPACE)
def test_without_a_workspace_the_next_step_is_init(line, stanch, files, tmp_path):
    shown = stanch(*words_of(line, files))
    assert (shown.code, shown.out) == (2, "")
    assert shown.err.startswith("error: no workspace in ")
    assert "next:  make one with: stanch init" in shown.err
    assert not (tmp_path / ".stanch").exists()


def test_every_error_class_has_a_documented_exit_code():
    classes = [found for found in vars(errors_module).values() if isinstance(found, type)]
    codes = {found.exit_code for found in classes if issubclass(found, errors_module.StanchError)}
    assert codes <= {1, 2, 3, 4, 5, 70}
