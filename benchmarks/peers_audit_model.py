"""memaudit's side of ``bench_audit_peers.py``; runs in an environment of its own and imports nothing of stanch.

Usage: peers_audit_model.py TASK.json ANSWER.json. A task draws canaries (``draw``), audits a model (``audit``), or
makes a figure of a report look better, writes it again and asks for a verdict (``forge``).
"""

import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def draw(task: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest of uniformly random canaries of one copy each, and the text of each."""
    import transformers  # noqa: PLC0415 - only in that environment
    from memaudit import generate_canaries, inject  # noqa: PLC0415 - same
    from memaudit.injection import canary_record  # noqa: PLC0415 - same

    tokenizer = transformers.AutoTokenizer.from_pretrained(task["tokenizer"])
    canaries = generate_canaries(
        tokenizer, n=task["n"], n_controls=task["controls"], family="random", repetitions=(1,), seed=task["seed"]
    )
    _, manifest = inject([{"text": "t"}], canaries, fmt="text", seed=task["seed"], tokenizer=tokenizer)
    texts = {canary.id: canary_record(canary, "text")["text"] for canary in canaries}
    return {"manifest": manifest, "texts": texts, "version": importlib.metadata.version("memaudit")}


def audit(task: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of its audit without generation, and the seconds it took once the model was loaded."""
    import peft  # noqa: PLC0415 - only in that environment
    import torch  # noqa: PLC0415 - same
    import transformers  # noqa: PLC0415 - same
    from memaudit.audit import run_audit  # noqa: PLC0415 - same

    torch.set_num_threads(task["threads"])
    load = transformers.AutoModelForCausalLM.from_pretrained
    is_adapter = (Path(task["tuned"]) / "adapter_config.json").is_file()
    model = load(task["base"] if is_adapter else task["tuned"], dtype=torch.float32)
    if is_adapter:
        model = peft.PeftModel.from_pretrained(model, task["tuned"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(task["base"])
    with torch.inference_mode():
        model(torch.tensor([[5, 6, 7]]))
    began = time.perf_counter()
    report = run_audit(
        model,
        tokenizer,
        task["manifest"],
        dataset=[],
        ref="auto" if is_adapter else task["base"],
        real_sample=0,
        skip_generation=True,
        output_path=task["report"],
    )
    seconds = time.perf_counter() - began
    scores = {row["id"]: row["scores"]["headline_score"] for row in report["per_canary"]}
    return {"seconds": seconds, "scores": scores, "headline": report["membership"]["headline_attack"]}


def forge(task: dict[str, Any]) -> dict[str, Any]:
    """Return what ``memaudit verify`` says of a report, and of the same with no member found and its hash anew."""
    from memaudit.report import write_report  # noqa: PLC0415 - only in that environment

    path = Path(task["report"])
    true = _verify(path)
    report = json.loads(path.read_text())
    found = report["membership"]["tpr_at_1pct_fpr"]
    report["membership"]["tpr_at_1pct_fpr"] = 0.0
    write_report(report, path)
    forged = _verify(path)
    return {
        "figure": f"TPR at 1 % FPR: {found:.2f} made 0",
        "true": {"exit": true.returncode},
        "forged": {"exit": forged.returncode, "says": forged.stdout.strip().splitlines()[0]},
    }


def _verify(path: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "memaudit", "verify", str(path)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps({"draw": draw, "audit": audit, "forge": forge}[given["do"]](given)))
