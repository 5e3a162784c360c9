"""The rules of the house, run as tests: lint, format, types, and who may import whom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(("ruff", "check", "."), id="ruff finds nothing"),
        pytest.param(("ruff", "format", "--check", "."), id="everything is formatted"),
        pytest.param(("mypy",), id="types hold in strict mode"),
        pytest.param(("lint-imports", "--no-cache"), id="imports flow one way"),
    ],
)
def test_the_tools_find_nothing(argv: tuple[str, ...]) -> None:
    done = subprocess.run([BIN / argv[0], *argv[1:]], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_the_module_map_of_the_architecture_page_is_complete() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = [path for path in (ROOT / "keepflow").iterdir() if path.is_dir() and (path / "__init__.py").exists()]
    missing = [room.name for room in rooms if f"| `{room.name}/` |" not in page]
    assert not missing, f"ARCHITECTURE.md does not name {missing}"


def test_every_ignored_rule_says_why() -> None:
    bare = []
    for path in [*ROOT.glob("keepflow/**/*.py"), *ROOT.glob("tests/**/*.py")]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for marker in ("# noqa", "# type: ignore", "# pragma"):
                _, found, rest = line.partition(marker)
                if found and "line.partition" not in line and " - " not in rest and "  # " not in rest:
                    bare.append(f"{path.relative_to(ROOT)}:{number}")
    bare = [place for place in bare if not place.startswith("tests/test_rules.py")]
    assert not bare, f"ignores without a reason: {bare}"


def test_every_room_of_the_engine_can_be_entered_first() -> None:
    """A circle of imports breaks only those processes that come in by the wrong door."""
    rooms = sorted(path.stem for path in (ROOT / "keepflow" / "engine").glob("[a-z]*.py"))
    script = (
        "import importlib, sys\n"
        "for room in sys.argv[1:]:\n"
        "    for name in [name for name in sys.modules if name.startswith('keepflow.engine')]: del sys.modules[name]\n"
        "    importlib.import_module(f'keepflow.engine.{room}')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *rooms], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
