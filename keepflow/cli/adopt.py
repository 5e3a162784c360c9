"""`keepflow adopt`: the flow file of another system turned into a `.keepflow.yml`, offline."""

from __future__ import annotations

from pathlib import Path

import click

from keepflow.cli.flow_files import FLOW_FILES, step_kinds
from keepflow.cli.output import say
from keepflow.errors import Refused, UsageError

#: Names of `config.adopt`, written out so that the help loads none of them.
FORMATS = ("caicloud", "drone", "flow-build-server", "gitlab-ci", "t1cicd", "woodpecker")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "source", type=click.Choice(FORMATS), help="The format of FILE (default: what fits).")
@click.option("--image", metavar="NAME", help="The name its images get (default: the name of this directory).")
@click.option(
    "--to", "target", default=FLOW_FILES[0], show_default=True, metavar="FILE", help="What to write; - prints."
)
@click.option("--force", is_flag=True, help="Overwrite a flow file that exists.")
def adopt(file: Path, source: str | None, image: str | None, target: str, force: bool) -> None:
    """Turn FILE of another system into a flow file, and list what could not be carried over, with its lines.

    Known are caicloud.yml (Circle, Cyclone), T1-CICD pipelines, workflows of flow-build-server, .woodpecker.yml,
    .drone.yml and simple .gitlab-ci.yml files. What is written is valid: `keepflow plan` shows what it would do.
    """
    from keepflow.config.adoption import adopted
    from keepflow.core.names import slug

    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", code="unreadable") from None
    existing = [name for name in FLOW_FILES if Path(name).exists()] if target == FLOW_FILES[0] else []
    if target != "-" and not force and (existing or Path(target).exists()):
        name = existing[0] if existing else target
        raise Refused(f"{name} exists; look at it, or write over it with --force", code="exists")
    found = adopted(data, str(file), step_kinds(), image or slug(Path.cwd().name), source)
    for loss in found.losses:
        say(f"{file}:{loss.line}: {loss.what}: {loss.why}")
    if target == "-":
        return click.echo(found.text, nl=False)
    Path(target).write_text(found.text, encoding="utf-8")
    say(f"wrote {target} from {found.title}; {len(found.losses)} notes above say what is not as it was there")
    return say("next: read it, then `keepflow plan` and `keepflow run FLOW --local`")
