"""The failpoints of the product, read from its source: what the suite must have hit, no more and no less."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from keepflow.core.states import Phase

SOURCE = Path(__file__).parent.parent.parent / "keepflow"


def points() -> frozenset[str]:
    """Return the name of every failpoint.

    Two places make names from what they are given: `Scene.enter` (phases) and `Scene.act` (acts); their callers are
    read instead. Raises ValueError for any other name that is not written out.
    """
    found: set[str] = set()
    for path in SOURCE.glob("**/*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            found |= set(_names(call, path))
    return frozenset(found)


def _names(call: ast.Call, path: Path) -> Iterator[str]:
    match call:
        case ast.Call(func=ast.Name("fail"), args=[ast.Constant(str(name))]):
            yield name
        case ast.Call(func=ast.Name("fail")) if path.name != "scene.py":
            raise ValueError(f"{path}:{call.lineno}: write the names of failpoints out, so that they can be found")
        case ast.Call(func=ast.Attribute(attr="enter"), args=[ast.Attribute(ast.Name("Phase"), phase), *_]):
            yield f"deploy.{Phase[phase].value}"
        case ast.Call(func=ast.Attribute(attr="act"), args=[ast.Constant(str(name)), *_]):
            yield from (f"{name}.before", f"{name}.after")
        case _:
            pass
