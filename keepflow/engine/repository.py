"""What a repository says about an event: is the commit still there, what does its flow file say, did it move on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from keepflow import errors
from keepflow.config.flow_file import load_flow
from keepflow.core.events import Event, EventKind
from keepflow.core.flows import FlowFile
from keepflow.core.states import Reason
from keepflow.core.text import quoted
from keepflow.engine.context import Master
from keepflow.store.projects import Project
from keepflow.tools.git import check_ref, check_sha


@dataclass(frozen=True, slots=True)
class Found:
    """What was found out about an event.

    `gone` says why the commit cannot be built at all; else exactly one of `flow_file` and `failure` is set. `log` is
    what the log of a failed run shows. `newer` is the newer commit of the branch that was taken before this one came.
    """

    event: Event
    gone: str = ""
    head: str | None = None  #: commit that the ref has at the remote
    flow_file: FlowFile | None = None
    failure: Reason | None = None
    log: str = ""
    newer: str | None = None


def look(master: Master, project: Project, event: Event, taken: str | None, told_at: int, now: int) -> Found:
    """Fetch the ref of an event and read the flow file at its commit.

    `taken` is the commit last taken of that ref, `told_at` when the event came.
    Raises CommandFailed or BadRemote when the remote cannot be asked now. Not for the writer thread: it runs git.
    """
    try:
        ref, sha = check_ref(event.ref), check_sha(event.sha)
    except errors.UsageError as error:
        return Found(event, gone=error.message)
    head = master.mirrors.fetch_told(project, ref, sha, told_at, now).head
    if head is None:
        return Found(event, gone=f"{quoted(ref)} is not at the remote any more")
    if head != sha and not master.mirrors.is_ancestor(project, sha, head):
        rewritten = f"{sha[:12]} is no longer part of {quoted(ref)}, which was rewritten and now is at {head[:12]}"
        return Found(event, gone=rewritten, head=head)
    return replace(
        _flow_file(master, project, _described(master, project, event), sha),
        head=head,
        newer=_newer(master, project, event, head, taken),
    )


def _described(master: Master, project: Project, event: Event) -> Event:
    """Give an event that nobody described (a sweep's, a person's) the message and author of its commit."""
    if event.message or event.author:
        return event
    commits = master.mirrors.commits(project, None, event.sha, 1)
    return replace(event, message=commits[0].subject, author=commits[0].author) if commits else event


def _flow_file(master: Master, project: Project, event: Event, sha: str) -> Found:
    try:
        found = master.mirrors.read_flow_file(project, sha)
        if found is None:
            sentence = (
                f"there is no {project.flow_file} at commit {sha[:12]}: write one with `keepflow init` and push it"
            )
            return Found(event, failure=Reason("no-flow-file", sentence), log=f"{sentence}\n")
        name, content = found
        return Found(event, flow_file=load_flow(content, master.kinds, name))
    except errors.ConfigError as error:
        problems = "\n".join(str(problem) for problem in error.problems)
        return Found(event, failure=Reason("config", problems), log=f"{problems}\n")
    except errors.TooLarge as error:
        return Found(event, failure=Reason("config", error.message), log=f"{error.message}\n")


def _newer(master: Master, project: Project, event: Event, head: str, taken: str | None) -> str | None:
    """Return `taken` when it is a newer commit of the same branch: hooks came in the wrong order."""
    if event.kind != EventKind.PUSH or taken in (None, event.sha, event.before) or head == event.sha:
        return None
    return taken if taken and master.mirrors.is_ancestor(project, event.sha, taken) else None
