"""The threats that stanch knows: who, what they try, what stops or shows it, how that is proved and where it ends.

The one place where they are written: ``stanch threats`` shows them and docs/explain/threat-model.md is made from them.
"""

from dataclasses import dataclass

NOT_DEFENDED = (
    "root or a debugger on the machine",
    "memory of running processes (Python cannot promise to wipe it)",
    "side channels",
    "availability",
    "retrieved documents and prompts",
    "what the base model memorised before us",
    "a person who holds every key",
)
"""What no control here stops."""

RAND_LEVEL = (
    "With everything switched on, the measures for copies on disk and on the way are of the kind that RAND asks for up "
    "to its level SL3. Levels SL4 and SL5 ask for what no program adds: hardware that keeps weights confidential while "
    "they are used, limits of bandwidth, isolated networks. stanch makes no claim there."
)


@dataclass(frozen=True, slots=True)
class Control:
    """One measure against a threat: what it is, the command or setting that switches it on, the one that proves it."""

    what: str
    switch_on: str
    prove: str


@dataclass(frozen=True, slots=True)
class Threat:
    """Who tries what, what there is against it, and where that ends; ``maps`` are keys of ``FRAMEWORKS``."""

    name: str
    who: str
    tries: str
    controls: tuple[Control, ...]
    ends: str
    maps: tuple[str, ...]


THREATS = (
    Threat(
        "recite", "a user of the model", "makes it recite training rows",
        (
            Control("secrets and personal data are taken out before tuning", "stanch scan", "stanch scan"),
            Control("what any one row can change is bounded", "stanch tune run", "stanch tune verify"),
            Control("what the model remembers is measured, and blocked", "stanch audit run", "stanch audit gate"),
            Control("answers are filtered while they stream", "stanch gateway serve", "stanch guard check"),
        ),
        "paraphrase and translation pass the guard; an audit never proves the absence of a leak",
        ("AML.T0057", "LLM02:2026", "NISTAML.038", "EDPB 28/2024 55(iii)"),
    ),
    Threat(
        "infer", "a user of the model", "learns whether a record was in the training data, or what stood in it",
        (
            Control("a bound on what anybody can learn", "stanch tune run", "stanch tune verify"),
            Control("membership, exposure and reconstruction are tested", "stanch audit run", "stanch audit verify"),
            Control("answers are cut for few protected passages in all, since each cut shows one",
                    "stanch gateway serve", "stanch gateway budgets"),
        ),
        "who lets the model repeat a passage learns from the cut that it is protected, of as many as the budget of "
        "cut windows allows, and of own terms without a limit, with an alert when they are many; "
        "an audit of few canaries sees only large breaks; attributes and inversion are not tested, which it says",
        (
            "AML.T0024", "AML.T0024.000", "AML.T0024.001", "NISTAML.032", "NISTAML.033", "EDPB 28/2024 55(i)",
            "EDPB 28/2024 55(iv)", "EDPB 28/2024 55(v)",
        ),
    ),
    Threat(
        "extract", "a user of the model", "copies the model, or draws the data, by very many questions",
        (
            Control("budgets of requests, tokens and protected passages", "stanch gateway serve",
                    "stanch gateway budgets"),
        ),
        "slow extraction within the budget; many principals each below theirs",
        ("AML.T0024.002", "LLM06:2026", "NISTAML.031", "RAND hard interfaces"),
    ),
    Threat(
        "steal", "a thief of a file, a disk or a bucket", "reads the weights",
        (
            Control("copies are encrypted to named keys", "stanch seal create", "stanch seal verify"),
            Control("stray plaintext copies are found", "stanch inventory", "stanch inventory"),
            Control("a key that is lost is no longer served", "stanch release revoke", "stanch log query"),
        ),
        "where an authorised process runs, memory holds plaintext; a copy that was opened once stays with its opener",
        ("AML.T0025", "AML.T0035", "EDPB 28/2024 55(ii)", "RAND central copies", "GDPR 33"),
    ),
    Threat(
        "pass on", "a recipient", "gives the copy to somebody else",
        (
            Control("every copy carries its recipient's mark", "stanch release create", "stanch trace run"),
            Control("a stranger checks the accusation", "stanch trace pack", "stanch trace verify"),
            Control("a served copy is asked for canaries", "stanch data canaries inject", "stanch trace hunt"),
        ),
        "distillation and training from scratch remove the mark; a mark names a copy, not a person",
        ("AML.T0044", "EDPB 28/2024 55(ii)"),
    ),
    Threat(
        "tamper", "whoever can write where models lie", "changes weights, tokenizer or template; replays a release",
        (
            Control("the publisher signs digests of the ciphertext", "stanch sign create", "stanch sign verify"),
            Control("release numbers never go back", "stanch release propose", "stanch release fetch"),
            Control("a certificate is bound to every file", "stanch audit run", "stanch audit gate"),
        ),
        "whoever trusts another key trusts another publisher",
        ("AML.T0018", "LLM04:2026", "LLM05:2026"),
    ),
    Threat(
        "bring in", "whoever sends us a model", "code that runs when it is loaded",
        (Control("pickles and remote code are refused", "stanch sign intake", "stanch sign intake"),),
        "bugs in the numeric libraries that everybody rests on; what the base model was taught",
        ("AML.T0010.003", "LLM04:2026"),
    ),
    Threat(
        "release alone", "an insider", "lets a model out without a second person",
        (
            Control("a copy's key exists only as shares of its approvers", "stanch release create --approver",
                    "stanch release redeem"),
            Control("whose share it is, only that person's own key says", "stanch access add --key",
                    "stanch access key register"),
            Control("rights are few, end by themselves and are reviewed", "stanch access grant",
                    "stanch access review"),
        ),
        "the process that seals has the model in memory; approvers can collude; an administrator can add people with "
        "keys of his own, in the log, and names stand in the database: name approvers by their ids and keys",
        ("RAND few people", "RAND insiders", "RAND defence in depth"),
    ),
    Threat(
        "take over", "whoever breaks into the gateway's host", "uses what lies there",
        (
            Control("the gateway may serve, and grant, release or read nothing", "stanch access add --role",
                    "stanch access why"),
            Control("its host has no key that signs releases or certificates", "stanch serve --gateway-only",
                    "stanch doctor"),
        ),
        "questions and answers pass through it, and so do the keys and tokens that programs show; with the log's key "
        "and the database's password it answers unguarded, writes rows, and shows a log of its own making, which "
        "other hosts, anchors and witnesses contradict; it opens no copy and gives no approval",
        ("LLM02:2026", "AML.T0025", "RAND defence in depth"),
    ),
    Threat(
        "rewrite", "an insider with the database", "deletes or changes the record of an act",
        (
            Control("a Merkle log with signed checkpoints", "stanch init", "stanch log verify"),
            Control("checkpoints lie with others", "[ledger] anchors", "stanch log verify"),
            Control("a witness signs what it has seen", "stanch log witness serve", "stanch log verify"),
            Control("rows of rights are held against signed acts", "stanch access add", "stanch doctor"),
        ),
        "whoever holds the log key and every copy of every checkpoint can rewrite history unnoticed; who writes the "
        "database can add acts in the name of people who sign in without a key of their own, of which doctor warns, "
        "and has the rights that he writes until doctor is asked",
        ("RAND insiders",),
    ),
    Threat(
        "accuse", "an owner", "names an innocent recipient",
        (
            Control("keys are committed before copies exist; decoys", "stanch release propose", "stanch trace verify"),
        ),
        "the owner could have leaked the recipient's copy himself",
        ("EDPB 28/2024 55(ii)",),
    ),
    Threat(
        "pretend", "whoever tunes", "claims a guarantee of privacy that does not hold",
        (
            Control("one plan owns sampler, clipping, noise and accountant", "stanch tune run", "stanch tune verify"),
            Control("what was measured is held against what is claimed", "stanch audit run", "stanch audit verify"),
        ),
        "a budget journal kept by somebody else; an audit of few canaries sees only large breaks",
        ("EDPB 28/2024 55(i)", "LLM02:2026"),
    ),
)  # fmt: skip
"""All threats, in the order of a model's life."""
