"""`keepflow hook`: how a bare repository, without any forge, tells keepflow about its pushes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keepflow.errors import KeepflowError, UsageError

if TYPE_CHECKING:
    from keepflow.cli.pushed import Sender, Update

_POST_RECEIVE = """\
#!/bin/sh
# hooks/post-receive of the bare repository, mode 0755. Tells keepflow about every branch and tag that was pushed.
# keepflow must be installed here, and the secret's file belong to the account that git runs as, with mode 0600.
# Whatever happens here, the push itself has already succeeded.
command -v keepflow >/dev/null || {{
  echo "keepflow: not found by $(id -un), so it is not told of this push; it looks by itself within minutes" >&2
  exit 0
}}
exec keepflow hook send --url {url} --secret-file {secret}
"""


@click.group()
def hook() -> None:
    """Connect a bare repository: print its post-receive hook, or be that hook."""


@hook.command()
@click.option("--url", required=True, help="Where the master takes hooks, like https://ci.example.org/hooks/shop.")
@click.option(
    "--secret-file",
    required=True,
    type=click.Path(path_type=Path),
    help="File with the hook's secret, on the git server.",
)
def show(url: str, secret_file: Path) -> None:
    """Print the post-receive hook.

    It calls `keepflow hook send`, so keepflow must be installed where the repository is. There is no variant of plain
    sh, curl and openssl, on purpose: openssl takes the signing key as an argument, where every account of the machine
    can read it.
    """
    if not secret_file.is_absolute():
        raise UsageError(f"{secret_file}: write the whole path; git runs hooks in a directory of its own")
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"{url[:200]!r} is not the address of a master; write https://…/hooks/PROJECT")
    click.echo(_POST_RECEIVE.format(url=shlex.quote(url), secret=shlex.quote(str(secret_file))), nl=False)


@hook.command()
@click.option("--url", required=True, help="Where the master takes hooks.")
@click.option("--secret-file", required=True, type=click.Path(path_type=Path), help="File with the hook's secret.")
@click.option("--repository", type=click.Path(path_type=Path), help="The repository (default: $GIT_DIR, or here).")
@click.option("--ca-file", type=click.Path(path_type=Path, exists=True), help="CA of the master's certificate.")
@click.option("--strict", is_flag=True, help="Exit with an error when the master could not be told.")
@click.pass_context
def send(
    ctx: click.Context, url: str, secret_file: Path, repository: Path | None, ca_file: Path | None, strict: bool
) -> None:
    """Tell the master about pushes: reads `old new ref` lines on stdin, as git gives them to post-receive.

    Without --strict a failure is a warning and exit code 0: what a lost hook missed, the master finds by itself.
    """
    from keepflow.cli.pushed import Sender, read_updates

    failures = 0
    try:
        sender = Sender(url, secret_file, repository, ca_file)
        for update in read_updates(sys.stdin.buffer):
            failures += not _told(sender, update)
    except KeepflowError as error:
        failures += 1
        click.echo(f"keepflow: {error.message}", err=True)
    ctx.exit(1 if failures and strict else 0)


def _told(sender: Sender, update: Update) -> bool:
    """Tell about one update; says on stderr what became of it."""
    try:
        answer = sender.tell(update)
    except KeepflowError as error:
        click.echo(f"keepflow: {update.ref}: {error.message}", err=True)
        return False
    click.echo(f"keepflow: {update.ref}: {answer}", err=True)
    return True
