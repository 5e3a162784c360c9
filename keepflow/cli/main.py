"""The `keepflow` command: which verbs there are, loaded only when called, and what becomes of errors."""

from __future__ import annotations

import importlib
import os
import sys
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

from keepflow import __version__
from keepflow.errors import KeepflowError


class Verb(NamedTuple):
    """Where a verb's command lives, and its line in the help."""

    target: str  #: "module:object" below keepflow.cli
    help: str


#: Every verb, by the group it is shown under. Listing them here keeps `--help` from importing any of them.
VERBS: dict[str, dict[str, Verb]] = {
    "Serve": {
        "up": Verb("up:up", "Start the master and an agent on this machine."),
        "down": Verb("up:down", "Stop what `up --detach` started."),
        "status": Verb("up:status", "Say whether the master here is healthy."),
        "master": Verb("master:master", "Start the master alone."),
        "agent": Verb("agents_remote:agent", "Run, join, list and revoke agents."),
        "notices": Verb("notices:notices", "List what channels were told, and try one out."),
        "keys": Verb("keys:keys", "List and replace the key that signs orders."),
        "registry": Verb("registry:registry", "Start an image registry with TLS."),
        "storage": Verb("storage:storage", "Show what logs and artifacts take, and what is let go of."),
        "backup": Verb("backups:backup", "Write everything of the master to one file."),
        "restore": Verb("backups:restore", "Put a backup into an empty home."),
        "apply": Verb("server:apply", "Make the master equal to keepflow.yml."),
    },
    "Files": {
        "init": Verb("files:init", "Write a first .keepflow.yml."),
        "lint": Verb("files:lint", "Check flow files, offline."),
        "plan": Verb("files:plan", "Say which flow a push would start, and why."),
        "adopt": Verb("adopt:adopt", "Turn another system's file into a .keepflow.yml."),
        "schema": Verb("files:schema", "Print the JSON schema of the flow file."),
        "hook": Verb("hook:hook", "Print a post-receive hook for a bare repository."),
    },
    "Runs": {
        "run": Verb("runs:run", "Start a run by hand."),
        "runs": Verb("runs:runs", "List runs."),
        "show": Verb("runs:show", "Show one run."),
        "report": Verb("report:report", "Report how runs, stages and jobs went."),
        "logs": Verb("runs:logs", "Print, search or follow the log of a run."),
        "artifacts": Verb("artifacts:artifacts", "List or download what the jobs of a run kept."),
        "approve": Verb("runs:approve", "Let the run of a pull request from a fork begin."),
        "cancel": Verb("runs:cancel", "Cancel a run."),
        "rerun": Verb("control:rerun", "Run an ended run again."),
        "pause": Verb("control:pause", "Let nothing new of a project begin."),
        "resume": Verb("control:resume", "Let a paused project go on."),
        "deliveries": Verb("deliveries:deliveries", "List what forges told, and what was decided."),
        "replay": Verb("deliveries:replay", "Handle a delivery once more."),
        "why": Verb("runs:why", "Say why a run or an environment is as it is."),
    },
    "Delivery": {
        "environments": Verb("delivery:environments", "Show what serves where."),
        "promote": Verb("delivery:promote", "Promote a tested release."),
        "rollback": Verb("going_back:rollback", "Go back to a release that served before."),
        "canary": Verb("canary:canary", "Steer a canary that is under way."),
        "secret": Verb("secrets:secret", "Set, list and remove secrets of a project or an environment."),
        "quarantine": Verb("quarantine:quarantine", "See and lift what keeps a release from an environment."),
        "drift": Verb("drift:drift", "Say how what serves differs from what was deployed."),
        "settle": Verb("settling:settle", "Say how a deployment ended when nobody knows."),
        "receipt": Verb("switches:receipt", "Show what the switches of a run proved."),
        "tested": Verb("rules:tested", "Mark what serves as tested."),
        "rejected": Verb("rules:rejected", "Reject what serves."),
        "gate": Verb("rules:gate", "Show or reopen what waits for approval."),
        "lock": Verb("rules:lock", "Keep an environment as it is."),
        "unlock": Verb("rules:unlock", "Let deployments through again."),
        "acknowledge": Verb("rules:acknowledge", "Follow up a deployment outside the rules."),
        "deploys": Verb("delivery:deploys", "List the deployments of an environment."),
        "countersign": Verb("countersign:countersign", "Sign how a release was built with a key of your own."),
        "verify": Verb("verify:verify", "Check the evidence of a release, offline."),
    },
    "People": {
        "project": Verb("server:project", "List projects."),
        "user": Verb("people:user", "Add, list and disable users."),
        "group": Verb("people:group", "List and set groups."),
        "role": Verb("people:role", "Give and take roles in a project."),
        "token": Verb("people:token", "Make, list and revoke API tokens."),
    },
    "Tool": {
        "completion": Verb("shell:completion", "Print the completion script of a shell."),
        "version": Verb("shell:version", "Print the version."),
    },
}
_TARGETS = {name: verb.target for group in VERBS.values() for name, verb in group.items()}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Name every verb in the order of the help."""
        return list(_TARGETS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import one verb, or None when there is no such verb."""
        if cmd_name not in _TARGETS:
            return None
        module, _, attribute = _TARGETS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(f"keepflow.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb meant, and suggest one when there is none of that name."""
        if args and args[0] not in _TARGETS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], _TARGETS, n=1)
            raise click.UsageError(f"there is no verb {args[0]!r}" + (f"; did you mean `{near[0]}`?" if near else ""))
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete verbs without importing them, then options."""
        verbs = [(name, verb.help) for group in VERBS.values() for name, verb in group.items()]
        found = [CompletionItem(name, help=line) for name, line in verbs if name.startswith(incomplete)]
        return found if incomplete else [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the verbs in their groups, without importing them."""
        for title, verbs in VERBS.items():
            with formatter.section(title):
                formatter.write_dl([(name, verb.help) for name, verb in verbs.items()], col_max=14)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--url", metavar="URL", help="The master to talk to (else KEEPFLOW_URL, config.yml, the one running here)."
)
@click.option("--token-file", metavar="FILE", help="The file with the token for it (else KEEPFLOW_TOKEN[_FILE]).")
@click.option("--no-color", is_flag=True, help="No colours (also: NO_COLOR, TERM=dumb, no terminal).")
@click.version_option(__version__, message="keepflow %(version)s")
@click.pass_context
def cli(ctx: click.Context, verbose: bool, url: str | None, token_file: str | None, no_color: bool) -> None:
    """From git push to production on machines you own."""
    ctx.obj = {"verbose": verbose, "url": url, "token_file": token_file}
    if no_color or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        ctx.color = False


def main() -> None:
    """Run the command line and leave with the exit code of what happened."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line; errors become a message on stderr and an exit code."""
    try:
        result = cli.main(args=argv, prog_name="keepflow", standalone_mode=False)
    except KeepflowError as error:
        click.echo(f"keepflow: {error.message}  [{error.code}]", err=True)
        return _failed(argv, error, error.exit_code)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo(err=True)
        return 130
    except BrokenPipeError:
        # The reader went away (`| head`); what it did not want is no error. Python must not flush into the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        click.echo(f"keepflow: this is a bug in keepflow: {type(error).__name__}: {error}", err=True)
        return _failed(argv, error, 1)
    return result if isinstance(result, int) else 0


def _failed(argv: list[str], error: Exception, code: int) -> int:
    if {"-v", "--verbose"} & set(argv[:2]):
        import traceback

        traceback.print_exception(error)
    return code


if __name__ == "__main__":
    main()
