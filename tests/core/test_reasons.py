"""Every reason code that the code gives out has its words, and every word a code (R71)."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

import keepflow
from keepflow.core.reasons import MEANINGS, meaning

ROOT = Path(keepflow.__file__).parent


def _constants(tree: ast.Module) -> dict[str, str]:
    """Return the text constants of a module, also those of `A, B = "a", "b"`."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            for name, value in zip(names, values, strict=False):
                if isinstance(name, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found[name.id] = value.value
    return found


def given_out() -> dict[str, str]:
    """Return every code that stands as a text or a constant in `Reason(…)`, with a place where it does."""
    trees = {path: ast.parse(path.read_text()) for path in ROOT.rglob("*.py")}
    constants = {name: text for tree in trees.values() for name, text in _constants(tree).items()}
    found: dict[str, str] = {}
    for path, tree in trees.items():
        mine = {**constants, **_constants(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reason":
                code = _text(node.args[0], mine) if node.args else None
                if code:
                    found[code] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return found


def _text(node: ast.expr, constants: dict[str, str]) -> str | None:
    if isinstance(node, ast.Constant):
        return str(node.value)
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return constants.get(name)


def test_r71_every_code_that_is_given_out_has_a_sentence() -> None:
    codes = given_out()
    assert {"exit", "queue", "paused", "cancelled"} - codes.keys() == {"exit"}, "the search finds too little"
    without = {code: place for code, place in codes.items() if code not in MEANINGS}
    assert not without, "give these a sentence in keepflow/core/reasons.py"


def test_r71_what_an_agent_refuses_a_job_for_has_a_sentence() -> None:
    codes = set[str]()
    for name in ("jobs", "workspaces", "boxes", "images", "worker"):
        for node in ast.walk(ast.parse((ROOT / "agent" / f"{name}.py").read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "Refused":
                given = [word.value for word in node.keywords if word.arg == "code"]
                codes |= {str(value.value) for value in given if isinstance(value, ast.Constant)}
    assert "no-capability" in codes, "the search finds too little"
    assert codes <= MEANINGS.keys()


@pytest.mark.parametrize("code", MEANINGS)
def test_r71_every_sentence_is_one_and_belongs_to_a_code_that_exists(code: str) -> None:
    found = MEANINGS[code]
    assert found.sentence
    assert found.sentence[0].islower()
    assert not found.sentence.endswith(".")
    assert "\n" not in found.sentence + found.help
    assert f'"{code}"' in _sources(), "nothing gives this code out any more"


@functools.cache
def _sources() -> str:
    return "".join(path.read_text() for path in ROOT.rglob("*.py") if path.name != "reasons.py")


def test_an_unknown_code_means_nothing_more() -> None:
    assert meaning("of-the-future").sentence == ""
