"""`keepflow version` and `keepflow completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from keepflow import __version__


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(f"keepflow {__version__}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash: echo 'eval "$(keepflow completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(keepflow completion zsh)"' >> ~/.zshrc
    fish: keepflow completion fish > ~/.config/fish/completions/keepflow.fish
    """
    from keepflow.cli.main import cli

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(found(cli, {}, "keepflow", "_KEEPFLOW_COMPLETE").source())
