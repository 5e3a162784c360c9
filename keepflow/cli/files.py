"""`keepflow lint`, `plan`, `schema` and `init`: everything about files that needs no server."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from keepflow.cli.findings import FORMATS, render
from keepflow.cli.flow_files import FLOW_FILES, flow_file_at, read_flow_file, step_kinds
from keepflow.errors import Problem, Refused, UsageError

EVENTS = ("push", "tag", "pull_request", "schedule", "manual")
SCHEMA_FILE = ".keepflow.schema.json"


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("-f", "--file", "named", multiple=True, type=click.Path(path_type=Path), help="The same as FILES.")
@click.option(
    "--kind", type=click.Choice(["flow", "server", "agent"]), help="What the files are (default: by content)."
)
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.pass_context
def lint(ctx: click.Context, files: tuple[Path, ...], named: tuple[Path, ...], kind: Any, form: str) -> None:
    """Check flow, server and agent files, offline.

    Without FILES: the flow file in this directory. Prints one line per problem: `file:line:column: code message`.
    Exit code 0: nothing found, 1: problems, 2: a file cannot be read.
    """
    from keepflow.config.detection import problems_of

    paths = (*files, *named) or (flow_file_at(Path()),)
    problems: list[Problem] = []
    unreadable = False
    for path in paths:
        try:
            problems += problems_of(path.read_bytes(), str(path), step_kinds(), kind)
        except OSError as error:
            unreadable = True
            click.echo(f"keepflow: cannot read {path}: {error.strerror}", err=True)
    if text := render(problems, form):
        click.echo(text)
    noun = "problem" if len(problems) == 1 else "problems"
    click.echo(f"{len(problems)} {noun} in {len(paths)} file{'s' if len(paths) != 1 else ''}", err=True)
    ctx.exit(2 if unreadable else 1 if problems else 0)


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("-f", "--file", "named", type=click.Path(path_type=Path), help="The same as FILE.")
@click.option("--event", type=click.Choice(EVENTS), default="push", show_default=True)
@click.option("--changed", multiple=True, metavar="PATH", help="A file it changes, for flows with paths; repeatable.")
@click.option("--ref", help="Branch or tag, like dev or refs/heads/dev. Without it: what every flow would do.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def plan(
    file: Path | None, named: Path | None, event: str, changed: tuple[str, ...], ref: str | None, output: str
) -> None:
    """Say which flows an event would start, why, and in what order their jobs would run. Starts nothing."""
    from keepflow.cli.planned import as_json, as_text, planned
    from keepflow.core.events import EventKind

    if file and named:
        raise UsageError(f"one file is planned, not two: {file} and {named}", code="two-files")
    path = file or named or flow_file_at(Path())
    answer = planned(read_flow_file(path, shown=path), EventKind(event), ref, changed, time.time_ns() // 1000)
    click.echo(json.dumps(as_json(answer), indent=2) if output == "json" else as_text(answer))


@click.command()
@click.argument("kind", type=click.Choice(["flow", "server", "agent"]), default="flow")
@click.option(
    "--into", type=click.Path(path_type=Path), help="Write the keys of the flow file into this Markdown page."
)
def schema(kind: str, into: Path | None) -> None:
    """Print the JSON schema of a file, for editors: flow (default), server or agent.

    A master serves the same at /schema/flow.json. With --into, the parts of a page between `<!-- keys: NAME -->` and
    `<!-- end -->` are written anew instead, as tables.
    """
    if into is None:
        return click.echo(_schema_text(kind), nl=False)
    from keepflow.config.reference import filled, flow_models
    from keepflow.tools.files import write_atomic

    write_atomic(into, filled(into.read_text(), flow_models(step_kinds())).encode())
    return click.echo(f"wrote {into}", err=True)


@click.command()
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
@click.option("--image", help="Repository name of the image (default: the name of this directory).")
def init(force: bool, image: str | None) -> None:
    """Write a first .keepflow.yml, commented, and its schema for your editor."""
    from keepflow.cli.starter import flow_file_text
    from keepflow.core.names import slug

    here = Path.cwd()
    existing = [name for name in FLOW_FILES if (here / name).exists()]
    if existing and not force:
        raise Refused(f"{existing[0]} exists; look at it, or write over it with --force", code="exists")
    text = flow_file_text(image or slug(here.name), has_dockerfile=(here / "Dockerfile").exists(), schema=SCHEMA_FILE)
    for name, content in ((FLOW_FILES[0], text), (SCHEMA_FILE, _schema_text("flow"))):
        (here / name).write_text(content, encoding="utf-8")
        click.echo(f"wrote {name}")
    click.echo("next: read it, then `keepflow lint` and `keepflow plan --ref dev`", err=True)


def _schema_text(kind: str) -> str:
    from keepflow.config.schemas import schema_text

    return schema_text(kind, step_kinds())
