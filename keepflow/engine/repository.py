"""What a repository says about an event: is the commit still there, what does its flow file say, did it move on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from keepflow import errors
from keepflow.config.flow_file import load_flow
from keepflow.core.events import Event, EventKind
from keepflow.core.flows import FlowFile
from keepflow.core.matching import NOBODY_SAID, Changes, asks_what_changed, own_work, skip_word
from keepflow.core.states import Reason
from keepflow.core.text import one_line, quoted
from keepflow.engine.context import Master
from keepflow.store.projects import Project
from keepflow.tools.git import Made, check_ref, check_sha

_CONFLICTS_NAMED = 10
TEXT_LIMIT = 16_384  #: characters of a commit's message that are kept, as of a hook's


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
    conflict: Reason | None = None  #: why a pull request has no merge result that could be built
    log: str = ""
    made: Made | None = None
    newer: str | None = None
    changes: Changes = NOBODY_SAID  #: read only when some flow asks
    skip: str | None = None  #: the word in its commit's message that asks to skip it
    own: str | None = None  #: says that keepflow made it

    def taken_after(self, taken: str | None) -> str | None:
        """Return the commit that is the last one taken of the ref once this is decided; `taken` is it before."""
        if self.gone:
            return taken if self.head is not None else None
        return taken if self.newer is not None else self.event.tip


@dataclass(frozen=True, slots=True)
class Told:
    """An event, and when keepflow was told of it."""

    event: Event
    at: int


def look(master: Master, project: Project, event: Event, taken: str | None, told_at: int, now: int) -> Found:
    """Fetch the ref of one event and read the flow file at its commit; see `look_all`."""
    return look_all(master, project, [Told(event, told_at)], taken, now)[0]


def look_all(master: Master, project: Project, told: Sequence[Told], taken: str | None, now: int) -> list[Found]:
    """Look what the repository says about events of one ref, in the order they came: one fetch answers them all.

    `taken` is the commit last taken of that ref.
    Raises CommandFailed or BadRemote when the remote cannot be asked now. Not for the writer thread: it runs git.
    """
    try:
        ref = check_ref(told[0].event.ref)
    except errors.UsageError as error:
        return [Found(one.event, gone=error.message) for one in told]
    last = told[-1]
    head = master.mirrors.fetch_told(project, ref, last.event.sha, last.at, now).head
    looking, answers = _Looking(master, project, ref, head), []
    for one in told:
        found = looking.at(one.event, taken)
        taken = found.taken_after(taken)
        answers.append(found)
    return answers


@dataclass(frozen=True, slots=True)
class _Merge:
    """A pull request as it is to be built, or why it cannot be: nothing is left to merge into, or files conflict."""

    event: Event
    gone: str = ""
    conflict: Reason | None = None


class _Looking:
    """What the repository says about one ref, whose head was just fetched; each commit is looked at once."""

    def __init__(self, master: Master, project: Project, ref: str, head: str | None) -> None:
        self._master, self._project, self._ref, self._head = master, project, ref, head
        self._read: dict[str, Found] = {}
        self._tagger: str | None = None
        self._targets: dict[str, str | None] = {}

    def at(self, event: Event, taken: str | None) -> Found:
        """Return what is found out about an event of this ref, when `taken` was taken last."""
        head, sha = self._head, event.sha
        try:
            check_sha(sha)
        except errors.UsageError as error:
            return Found(event, gone=error.message, head=head)
        if head is None:
            return Found(event, gone=f"{quoted(self._ref)} is not at the remote any more")
        if head != sha and not self._master.mirrors.contains(self._project, head, sha):
            rewritten = (
                f"{sha[:12]} is no longer part of {quoted(self._ref)}, which was rewritten and now is at {head[:12]}"
            )
            return Found(event, gone=rewritten, head=head)
        newer, conflict = _newer(self._master, self._project, event, head, taken), None
        if event.kind == EventKind.PULL_REQUEST:
            merge = self._merge(event)
            if merge.gone:
                return Found(event, gone=merge.gone, head=head)
            event, conflict = merge.event, merge.conflict
        if event.sha not in self._read:
            self._read[event.sha] = _flow_file(self._master, self._project, event, event.sha)
        found = self._read[event.sha]
        made = found.made or Made("", "", event.message)
        return replace(
            found,
            event=_described(event, made),
            head=head,
            newer=newer,
            conflict=conflict,
            changes=self._changes(event, found.flow_file, taken),
            skip=self._skip(event, made),
            own=own_work(event, self._signer(event, made)),
        )

    def _merge(self, event: Event) -> _Merge:
        """Return what merging a pull request into its target gives; without a result its own head stands for it."""
        if event.target not in self._targets:
            self._targets[event.target] = self._master.mirrors.fetch(self._project, event.target).head
        target, number = self._targets[event.target], event.number
        if target is None:
            sentence = f"{quoted(event.target_branch)}, into which pull request {number} goes, is not at the remote"
            return _Merge(event, gone=sentence)
        message = f"Merge pull request {number} into {event.target_branch}\n"
        apart = replace(event, before=target, head=event.sha)
        try:
            merged = self._master.mirrors.merge(self._project, target, event.sha, message)
        except errors.CommandTimeout:
            raise
        except errors.CommandFailed as error:
            sentence = f"pull request {number} cannot be merged into {quoted(event.target_branch)}: {error.tail}"
            return _Merge(apart, conflict=Reason("merge-conflict", one_line(sentence, 400)))
        if merged.sha is None:
            return _Merge(apart, conflict=_conflict(event, merged.conflicts))
        return _Merge(replace(apart, sha=merged.sha))

    def _skip(self, event: Event, made: Made) -> str | None:
        """Return the word by which the newest commit of a push or a pull request asks to skip it."""
        if event.kind not in (EventKind.PUSH, EventKind.PULL_REQUEST):
            return None
        newest = made if event.tip == event.sha else self._master.mirrors.read(self._project, event.tip).made
        return skip_word(f"{event.message}\n{newest.message}")

    def _changes(self, event: Event, flow_file: FlowFile | None, taken: str | None) -> Changes:
        """Return what a push changed since the commit that was taken before it, whatever its hook says of that."""
        if flow_file is None or not asks_what_changed(event, flow_file):
            return NOBODY_SAID
        if event.kind == EventKind.PULL_REQUEST and event.before:
            return self._master.mirrors.changes(self._project, event.before, event.sha)
        before = taken if taken not in (None, event.sha) else event.before
        if before is None or before == event.sha:
            return self._master.mirrors.since_main(self._project, event.ref, event.sha)
        return self._master.mirrors.changes(self._project, before, event.sha)

    def _signer(self, event: Event, made: Made) -> str:
        """Return who put their name to it: the tagger of an annotated tag, else the committer of a pushed commit."""
        if event.kind != EventKind.TAG:
            return made.committer_email
        if self._tagger is None:
            self._tagger = self._master.mirrors.tagger(self._project, self._ref)
        return self._tagger


def _conflict(event: Event, files: Sequence[str]) -> Reason:
    named = ", ".join(quoted(name) for name in files[:_CONFLICTS_NAMED])
    more = f" and {len(files) - _CONFLICTS_NAMED} more" if len(files) > _CONFLICTS_NAMED else ""
    where = f"pull request {event.number} does not merge into {quoted(event.target_branch)}"
    return Reason("merge-conflict", f"{where}: {'conflicts' if len(files) > 1 else 'a conflict'} in {named}{more}")


def _described(event: Event, made: Made) -> Event:
    """Give an event that nobody described (a sweep's, a person's) the message and author of its commit."""
    if event.message or event.author:
        return event
    return replace(event, message=made.message[:TEXT_LIMIT], author=made.author[:TEXT_LIMIT])


def _flow_file(master: Master, project: Project, event: Event, sha: str) -> Found:
    made = None
    try:
        at = master.mirrors.read(project, sha)
        made, found = at.made, at.flow_file
        if found is None:
            sentence = (
                f"there is no {project.flow_file} at commit {sha[:12]}: write one with `keepflow init` and push it"
            )
            return Found(event, failure=Reason("no-flow-file", sentence), log=f"{sentence}\n", made=made)
        name, content = found
        return Found(event, flow_file=load_flow(content, master.kinds, name), made=made)
    except errors.ConfigError as error:
        problems = "\n".join(str(problem) for problem in error.problems)
        return Found(event, failure=Reason("config", problems), log=f"{problems}\n", made=made)
    except errors.TooLarge as error:
        return Found(event, failure=Reason("config", error.message), log=f"{error.message}\n")


def _newer(master: Master, project: Project, event: Event, head: str, taken: str | None) -> str | None:
    """Return `taken` when it is a newer commit of the same branch: hooks came in the wrong order."""
    if (
        event.kind not in (EventKind.PUSH, EventKind.PULL_REQUEST)
        or taken in (None, event.sha, event.before)
        or head == event.sha
    ):
        return None
    return taken if taken and master.mirrors.contains(project, taken, event.sha) else None
