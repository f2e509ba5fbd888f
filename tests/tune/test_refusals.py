"""Every refusal says what to do instead, is documented, and is shown by a test."""

import ast
import sys
from pathlib import Path

import pytest

import stanch.tune
from stanch.errors import InvalidInput, MissingExtraError, StanchError
from stanch.tune import refusals

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


def test_every_class_is_raised_documented_and_tested():
    made = {name for name, _, _ in raised()}
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
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
