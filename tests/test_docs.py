"""What the pages show works: every YAML block that is one of keepflow's files is loaded and has no problems."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import yaml
from jsonschema import Draft202012Validator

from keepflow.cli.main import cli
from keepflow.config.agent_file import AgentFile, Service
from keepflow.config.detection import FileKind, detect, problems_of
from keepflow.config.flow_file import load_flow
from keepflow.config.master_settings import MasterSettings
from keepflow.config.reference import descriptions, filled, flow_models, marked
from keepflow.config.schemas import FILES, schema_text
from keepflow.config.yaml_loader import load
from keepflow.core.interpolation import VARIABLES
from keepflow.core.planning import plan
from keepflow.ports import discover

ROOT = Path(__file__).resolve().parent.parent
PAGES = [path for name in ("README.md", "ARCHITECTURE.md") if (path := ROOT / name).exists()] + sorted(
    (ROOT / "docs").glob("**/*.md")
)
_BLOCK = re.compile(r"^```ya?ml[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"\A#[^\n]*?(?P<name>agent\.yml|(?<!\.)keepflow\.yml|\.keepflow\.yml)")
_KINDS: dict[str, FileKind] = {"agent.yml": "agent", "keepflow.yml": "server", ".keepflow.yml": "flow"}
#: Keys of which one alone says that a block is one of keepflow's files.
_TELLING = {"flows", "environments", "capabilities", "services", "projects", "container"}


class Block(NamedTuple):
    """One YAML block of a page; `kind` is None when its keys decide."""

    page: str
    line: int
    text: str
    kind: FileKind | None


def blocks() -> list[Block]:
    """Return every block that names its file in a first comment, or looks like one of keepflow's files."""
    found = []
    for page in PAGES:
        content = page.read_text()
        for match in _BLOCK.finditer(content):
            text, line = match[1], content[: match.start(1)].count("\n") + 1
            named = _NAMED.match(text)
            value = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - text only, from our own pages
            if named or (isinstance(value, dict) and _TELLING & set(value)):
                kind = _KINDS[named["name"]] if named else None
                found.append(Block(str(page.relative_to(ROOT)), line, text, kind))
    return found


@pytest.mark.parametrize("block", blocks(), ids=lambda block: f"{block.page}:{block.line}")
def test_a_file_a_page_shows_is_valid(block: Block) -> None:
    found = problems_of(block.text.encode(), block.page, discover("keepflow.steps"), block.kind)
    assert not found, "\n".join(str(problem) for problem in found)


def test_an_agent_reads_every_step_a_page_shows_as_it_was_written() -> None:
    """R26, R34: what a plan keeps of a step is what its kind takes again; `expire: 7d` once became a bare number."""
    kinds = discover("keepflow.steps")
    files = [
        load_flow(block.text, kinds)
        for block in blocks()
        if (block.kind or detect(load(block.text, block.page).value, block.page)) == "flow"
    ]
    jobs = [job for file in files for flow in file.flows.values() for job in plan(flow, file).jobs]
    steps = [step for job in jobs for step in job.steps]
    for step in steps:
        again = kinds[step.kind].Spec.model_validate(json.loads(json.dumps(step.spec)))
        assert again.model_dump(mode="json", exclude_defaults=True) == step.spec
    assert {step.kind for step in steps} == set(kinds)
    assert any("expire" in step.spec for step in steps)


def test_the_pages_show_every_kind_of_file() -> None:
    assert {"docs/flow-file.md", "README.md"} <= {block.page for block in blocks()}


@pytest.mark.parametrize("block", blocks(), ids=lambda block: f"{block.page}:{block.line}")
def test_the_published_schema_takes_every_file_a_page_shows(block: Block) -> None:
    kinds = discover("keepflow.steps")
    document = load(block.text, block.page)
    schema = json.loads(schema_text(block.kind or detect(document.value, block.page), kinds))
    found = [
        f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(document.value)
    ]
    assert not found


def test_the_published_schemas_are_schemas() -> None:
    for file in FILES:
        Draft202012Validator.check_schema(json.loads(schema_text(file, discover("keepflow.steps"))))


def test_the_keys_of_the_flow_file_on_its_page_are_those_of_the_models() -> None:
    page = (ROOT / "docs" / "flow-file.md").read_text()
    assert page == filled(page, flow_models(discover("keepflow.steps"))), "keepflow schema --into docs/flow-file.md"


def test_every_key_of_the_flow_file_is_on_its_page_with_what_it_is_for() -> None:
    models = flow_models(discover("keepflow.steps"))
    page = marked((ROOT / "docs" / "flow-file.md").read_text())
    assert sorted(set(models) - set(page)) == [], "write <!-- keys: NAME --> and <!-- end --> where it belongs"
    bare = [
        f"{name}.{key}" for name, one in models.items() for key in one.model_fields if not descriptions(one).get(key)
    ]
    assert bare == [], "say what the key is for in a '#:' comment at its field"


def test_the_reference_of_the_flow_file_names_every_variable() -> None:
    page = (ROOT / "docs" / "flow-file.md").read_text()
    missing = [name for name in VARIABLES if name not in page and f"`{name.removeprefix('KEEPFLOW')}`" not in page]
    assert not missing


def test_the_reference_of_the_flow_file_names_every_code() -> None:
    page = (ROOT / "docs" / "flow-file.md").read_text()
    config = ("yaml_loader", "validation", "flow_file", "flow_rules", "flow_models", "where")
    sources = [*(ROOT / "keepflow/config" / f"{name}.py" for name in config), ROOT / "keepflow/steps/run.py"]
    used = {code for path in sources for code in re.findall(r'"([a-z]+-[a-z0-9-]+)"', path.read_text())}
    missing = sorted(code for code in used if f"`{code}`" not in page)
    assert missing == []


def test_the_reference_names_every_verb_with_its_subverbs() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    context = click.Context(cli)
    verbs = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        verbs += [f"{name} {one}" for one in command.commands] if isinstance(command, click.Group) else [name]
    missing = [verb for verb in verbs if not re.search(rf"`{verb}\b", page)]
    assert not missing


def test_the_reference_names_every_setting_of_a_master_and_every_key_of_a_host() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    settings = [f"KEEPFLOW_{name.upper()}" for name in MasterSettings.model_fields]
    keys = [*AgentFile.model_fields, *Service.model_fields]
    missing = [name for name in (*settings, *keys) if not re.search(rf"`{name}\b", page)]
    assert not missing


def test_every_test_that_the_page_on_security_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text()))
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").glob("**/test_*.py"))
    assert named
    assert sorted(name for name in named if not re.search(rf"def {name}\b", sources)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_page_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
