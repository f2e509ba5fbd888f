"""Every refusal says what to do instead, is documented, and is shown by a test."""

import ast
import sys
from pathlib import Path

import pytest

import stanch.tune
from stanch.errors import InvalidInput, MissingExtraError, StanchError
from stanch.tune import refusals

TESTS = Path(__file__).parent
REFUSED = {
    # Plan and units.
    "a person's column, and no unit chosen": "test_units.py: UnitNotChosen",
    "a record without the column": "test_units.py: UnitColumnMissing",
    "delta of 1/N or more": "test_plan.py: DeltaTooLarge",
    "epsilon that is not finite": 'test_plan.py: (PrivacyParams(epsilon=float("inf")), InvalidInput)',
    "noise below 0.3": "test_plan.py: PlanInfeasible",
    "a batch above half of the units": "test_plan.py: (PrivacyParams(expected_batch=31), PlanInfeasible)",
    "fewer than 20 units": "test_plan.py: test_too_few_units",
    "a public number below the units found": "test_plan.py: units_public",
    "accountants that disagree": "test_accountant.py: AccountantDisagrees",
    "duplicates dropped with privacy": "test_refusals.py: refused with privacy",
    # Model.
    "a module without an exact gradient": "test_engine_full.py: UnsupportedModule",
    "DoRA, trained embeddings, biases, modules to save": "test_trainer.py: DoraLinearLayer",
    "an adapter fitted to data": "test_trainer.py: pissa",
    "batch statistics": "test_trainer.py: BatchNorm1d",
    "rows that feel each other, tokens that look ahead": "test_trainer.py: feel each other",
    "a quantised base": "test_trainer.py: quantised",
    "a batch axis that is lost": "test_engine.py: BatchAxisLost",
    "a parameter that is not collected": "test_engine.py: UncoveredParameter",
    "a model in shards": "test_processes.py: UnsupportedParallelism",
    # Trainer.
    "an argument beside the white list": "test_trainer.py: test_each_forced_field_is_refused_with_what_to_do",
    "a field of a later release": "test_trainer.py: unknown to this release",
    "evaluation on private data": "test_trainer.py: test_evaluation_needs_public_data",
    "several processes or a loss scaler": "test_trainer.py: test_mixed_precision_from_the_environment_is_refused",
    "a plan with a public seed": "test_trainer.py: void: public seed",
    "rows that are not the units' records": "test_trainer.py: test_rows_that_are_not_the_units_records_are_refused",
    "packing": "test_sft.py: packing",
    "canaries that do not reach the tokens": "test_callback.py: CanariesMissing",
    # Journal, checkpoints, resume.
    "another plan on resume": "test_trainer.py: another plan",
    "other settings on resume": "test_trainer.py: another run",
    "a run that lies in the way": "test_tune.py: RunExists",
    "a second writer": "test_journal.py: BudgetBusy",
    "a step beyond the plan": "test_journal.py: BudgetExhausted",
    "a journal that was cut": "test_journal.py: BudgetRolledBack",
    "a sealed checkpoint without its keys": "test_checkpoint.py: is sealed",
    "sealed checkpoints without a signing key": "test_commands.py: checkpoint-not-sealable",
    # Self-checks.
    "noise that is not the plan's": "test_planted_table.py: times the variance",
    "a first step that moves nothing": "test_trainer.py: changed no weight",
    "files that do not hold the trained weights": "test_trainer.py: saved files",
    "processes with other settings": "test_processes.py: RanksDiverged",
    "a process that is gone": "test_processes.py: RankLost",
    "a run with a public seed, verified": "test_tune.py: GuaranteeVoid",
}
"""What the design refuses, and the test that shows it: a file, and what stands in it."""

SOURCES = Path(stanch.tune.__file__).parent
ROOT = Path(__file__).parents[2]
CLASSES = {name: kind for name, kind in vars(refusals).items() if getattr(kind, "__module__", "") == refusals.__name__}


def raised() -> list[tuple[str, str, ast.Call]]:
    """Return where each refusal is made: its class, its place, the call."""
    return [
        (node.func.id, f"{path.name}:{node.lineno}", node)
        for path in sorted([*SOURCES.glob("*.py"), *SOURCES.with_name("cli").glob("tune*.py")])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLASSES
    ]


def test_every_refusal_says_what_to_do():
    silent = [place for _, place, call in raised() if "next_step" not in {word.arg for word in call.keywords}]
    assert silent == []


@pytest.mark.parametrize("what", REFUSED)
def test_each_refusal_of_the_design_has_its_test(what):
    name, _, word = REFUSED[what].partition(": ")
    text = (TESTS / name).read_text(encoding="utf-8")
    # The table itself does not count.
    assert word in text.replace(f"{name}: {word}", "")


def test_every_class_is_raised_documented_and_tested():
    made = {name for name, _, _ in raised()}
    # This file's table names them all.
    others = [path for path in TESTS.glob("test_*.py") if path != Path(__file__)]
    tests = "".join(path.read_text(encoding="utf-8") for path in others)
    documents = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    assert set(CLASSES) == made
    assert [name for name, kind in CLASSES.items() if name not in tests and f'"{kind("x").slug}"' not in tests] == []
    assert [name for name in CLASSES if f"| {name} |" not in documents] == []
    assert all(issubclass(kind, StanchError) and kind.__doc__ for kind in CLASSES.values())


def test_the_guide_shows_names_that_exist():
    text = (ROOT / "docs/guides/trainers.md").read_text(encoding="utf-8")
    blocks = text.split("```python\n")[1:]
    for block in blocks:
        tree = ast.parse(block.partition("```")[0])
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("stanch"):
                module = __import__(node.module, fromlist=["_"])
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize(
    ("name", "missing", "extra"),
    [
        ("PrivateTrainer", "transformers", "train"),
        ("StanchCallback", "transformers", "train"),
        ("adapter_shapes", "torch", "train"),
        ("PrivateSFTTrainer", "trl", "trl"),
    ],
)
def test_a_missing_package_names_its_extra(monkeypatch, name, missing, extra):
    for module in [one for one in sys.modules if one.startswith("stanch.tune.") and one.endswith("_torch")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(vars(stanch.tune), name, raising=False)  # an earlier test may have loaded it
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "trl":
        monkeypatch.setitem(sys.modules, "trl.trainer.sft_trainer", None)
    with pytest.raises(MissingExtraError) as caught:
        getattr(stanch.tune, name)
    assert caught.value.extra == extra
    with pytest.raises(AttributeError):
        _ = stanch.tune.NothingSuch


def test_dropping_duplicates_with_privacy_is_refused(make_spec, chats):
    with pytest.raises(InvalidInput, match="refused with privacy") as caught:
        stanch.tune.prepare(make_spec(extra='duplicates = "drop"', data='unit = "record"'), chats)
    assert "group" in caught.value.next_step
