"""The working trees of jobs, each in a lane: a job finds its commit and what the jobs it goes on with have left.

Where one job follows one other, the lane simply passes on, with everything in it. Where several follow one, or one
follows several, each works in a lane of its own, and what was changed is brought over; what was left on another machine
is fetched into a lane first (`handing_on`), and goes on like any other. A lane that somebody may still
go on with is kept, closed to all jobs, until its last follower has it or the run has ended; a note beside the tree
outlives a restart of the agent.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keepflow import errors
from keepflow.agent import trees
from keepflow.agent.completing import complete
from keepflow.agent.handing_on import Carrier
from keepflow.agent.job_host import Saying
from keepflow.agent.lanes import Held, Lanes, Source
from keepflow.agent.logs import Log
from keepflow.core.sharing import Left, merge, written
from keepflow.core.text import listed
from keepflow.executors.shell import Account
from keepflow.tools.files import write_atomic, write_unsynced
from keepflow.wire.messages import RunJob, Shared

log = Log(__name__)

_NOTE = "kept.json"
_BEGUN = "begun.json"
_FORSAKEN = 7 * 86400.0  #: seconds that a restarted agent waits for a master to say that a run has ended
_NAMED = 5  #: paths that an error names
_ENDED = 1000  #: ended runs that are remembered, for jobs of theirs that are still being stopped

Run = tuple[str, int]


@dataclass(slots=True)
class _Kept:
    """What a job has left, in the lane it had; `readers` are followers that just copy from it."""

    held: Held
    left: Left
    followers: int
    fence: int  #: of the attempt that left it
    readers: int = 0


@dataclass(slots=True)
class _Work:
    """The lane of a job that runs, and what was in it when it began."""

    held: Held
    left: Left
    look: trees.Look = field(default_factory=dict)


class Workspaces:
    """Gives jobs their working trees; fits `agent.job_host.Code`. Every method may be called from every thread."""

    def __init__(self, lanes: Lanes, account: Account | None = None) -> None:
        self._lanes = lanes
        self._carrier = Carrier(lanes, account)
        self._working: dict[int, _Work] = {}
        self._account = (account.uid, account.gid) if account else None
        self._lock = threading.Lock()
        self._kept: dict[Run, dict[str, _Kept]] = {}
        self._ended: dict[Run, None] = {}
        for place in lanes.marked(_NOTE):
            self._find(place)

    @contextlib.contextmanager
    def of(self, order: RunJob, source: Source, again: Path | None = None) -> Iterator[Path]:
        """Hold the working tree of a job while it runs. Raises CommandFailed, CommandTimeout and Refused (no files).

        `again` is the tree of a job that an earlier process of the agent began: that one, as it is, before anybody else
        can get it. Raises Unavailable `lane-taken`.
        """
        if order.shared is None:
            held = self._again(again) if again else self._lanes.take(order.project, order.trust)
            try:
                if again is None:
                    self._fill(order, held, source)
                yield held.tree
            finally:
                held.give_back()
            return
        run = (order.project, order.run)
        with self._lock:
            self._ended.pop(run, None)
        work = _begun(self._again(again)) if again else self._begin(run, order, order.shared, source)
        self._working[order.fence] = work
        try:
            yield work.held.tree
        finally:
            self._working.pop(order.fence, None)
            self._end(run, order, order.shared, work)

    def hand_on(self, order: RunJob, source: Source, log: Saying) -> None:
        """Bring the files of a job whose steps have ended to where other machines find them.

        Raises what `handing_on.Carrier.hand_on` raises.
        """
        work, shared = self._working[order.fence], order.shared
        paths = trees.changed(work.look, trees.look(work.held.tree)) if shared and shared.tracked else []
        self._carrier.hand_on(order, source, work.held, written(work.left, order.job, paths), log)

    def release(self, project: str, run: int) -> None:
        """Give back what is kept for a run that has ended."""
        with self._lock:
            self._ended[project, run] = None
            for old in list(self._ended)[:-_ENDED]:
                del self._ended[old]
            for kept in self._kept.pop((project, run), {}).values():
                kept.followers = 0
                if not kept.readers:
                    _forget(kept)

    def _again(self, tree: Path) -> Held:
        held = self._lanes.lock(tree.parent)
        if held is None:
            raise errors.Unavailable(f"another job works in {tree} meanwhile", code="lane-taken")
        held.open()
        return held

    # --- the beginning of a job ---------------------------------------------------------------------------------------

    def _begin(self, run: Run, order: RunJob, shared: Shared, source: Source) -> _Work:
        """Return the lane a job works in, with all files it goes on with."""
        here = self._claim(run, shared)
        try:
            work, brought = self._first(run, order, shared, source, here)
            try:
                for key in shared.bases[brought:]:
                    self._bring_base(work, order, shared, source, key, here.get(key))
                work.look = trees.look(work.held.tree) if shared.tracked else {}
            except BaseException:
                work.held.give_back()
                raise
        finally:
            self._unclaim(run, list(here.values()), shared)
        note = {**_plain(work.left), "look": work.look}
        write_unsynced(work.held.place / _BEGUN, json.dumps(note).encode(), 0o600)
        return work

    def _first(
        self, run: Run, order: RunJob, shared: Shared, source: Source, here: dict[str, _Kept]
    ) -> tuple[_Work, int]:
        """Return the lane that a job begins with, and how many of its bases are in it: one or none."""
        key = shared.bases[0] if shared.bases else None
        if key is None:
            return self._fresh(order, source), 0
        base = here.get(key)
        if base is None:
            return _Work(*self._carrier.fetch(order, source, shared.away[key])), 1
        if not self._passes_on(run, base, shared):
            return self._fresh(order, source), 0
        del here[key]
        (base.held.place / _NOTE).unlink(missing_ok=True)
        base.held.open()
        return _Work(base.held, base.left), 1

    def _fresh(self, order: RunJob, source: Source) -> _Work:
        held = self._lanes.take(order.project, order.trust)
        try:
            self._fill(order, held, source)
        except BaseException:
            held.give_back()
            raise
        return _Work(held, Left())

    def _fill(self, order: RunJob, held: Held, source: Source) -> None:
        self._lanes.fill(held.place, source)
        complete(order, source, held, self._lanes)

    def _claim(self, run: Run, shared: Shared) -> dict[str, _Kept]:
        """Find what a job goes on with here, and keep it from being passed on or given back meanwhile.

        What the last attempt at a job left on another machine outdates what an earlier one left here.
        """
        with self._lock:
            kept = self._kept.get(run, {})
            here = {
                key: kept[key]
                for key in shared.bases
                if key in kept and (key not in shared.away or shared.away[key].fence == kept[key].fence)
            }
            missing = [key for key in shared.bases if key not in here and key not in shared.away]
            if missing:
                sentence = f"the files that {listed(missing)} left are not on this host any more; start the run anew"
                raise errors.Refused(sentence, code="no-files")
            for base in here.values():
                base.readers += 1
            return here

    def _passes_on(self, run: Run, base: _Kept, shared: Shared) -> bool:
        """Take a base away from the kept ones when this job is the last that wants it: its lane goes to the job."""
        with self._lock:
            if shared.again or base.followers > 1 or base.readers > 1:
                return False
            kept = self._kept.get(run, {})
            return any(kept.pop(key) for key in [key for key, found in kept.items() if found is base])

    def _unclaim(self, run: Run, bases: list[_Kept], shared: Shared) -> None:
        with self._lock:
            kept = self._kept.get(run, {})
            for base in bases:
                base.readers -= 1
                base.followers -= 0 if shared.again else 1
                if not base.readers:
                    base.held.close()
                if base.followers <= 0 and not base.readers:
                    for key in [key for key, found in kept.items() if found is base]:
                        del kept[key]
                    _forget(base)

    def _bring_base(
        self, work: _Work, order: RunJob, shared: Shared, source: Source, key: str, base: _Kept | None
    ) -> None:
        if base is not None:
            base.held.open()
            self._bring(work, base.held, base.left, shared)
            return
        held, left = self._carrier.fetch(order, source, shared.away[key])
        try:
            self._bring(work, held, left, shared)
        finally:
            held.give_back()

    def _bring(self, work: _Work, held: Held, theirs: Left, shared: Shared) -> None:
        merged = merge(work.left, theirs)
        account, into = self._account, work.held.tree
        # What git ignores is what tools leave behind, such as caches: of that the first one's is as good as any.
        left = self._lanes.ignored(work.held.place, merged.both)
        clashing = (path for path in merged.both if path not in left)
        both = [path for path in clashing if not trees.same(path, held.tree, into, account)]
        if both and not shared.lenient:
            more = f" and {len(both) - _NAMED} more" if len(both) > _NAMED else ""
            sentence = f"jobs that ran side by side both changed {', '.join(both[:_NAMED])}{more}"
            raise errors.Refused(sentence, code="conflict")
        trees.bring(merged.taken, held.tree, into, account)
        work.left = merged.left

    # --- the end of a job ---------------------------------------------------------------------------------------------

    def _end(self, run: Run, order: RunJob, shared: Shared, work: _Work) -> None:
        """Close the lane of a job that has ended, and keep it for those that go on with it."""
        work.held.close()
        (work.held.place / _BEGUN).unlink(missing_ok=True)
        try:
            kept = self._keep(run, order, shared, work)
        except OSError as error:  # the disk is full: who needs these files is told that they are not there
            log.broke("the files of a job cannot be kept for others", error, fence=order.fence)
            kept = False
        if not kept:
            work.held.give_back()

    def _keep(self, run: Run, order: RunJob, shared: Shared, work: _Work) -> bool:
        """Keep the files of a job that has ended; False when nobody will go on with them."""
        if not shared.followers:
            return False
        paths = trees.changed(work.look, trees.look(work.held.tree)) if shared.tracked else []
        job = order.job
        kept = _Kept(work.held, written(work.left, job, paths), shared.followers, order.fence)
        with self._lock:
            if run in self._ended:
                return False
            _note(kept, run, job)
            before = self._kept.setdefault(run, {}).pop(job, None)
            self._kept[run][job] = kept
            if before is not None:  # of an attempt that failed: whoever goes on, does so with the last one
                _forget(before)
        return True

    def _find(self, place: Path) -> None:
        """Take a lane up again that an earlier process of the agent kept."""
        if time.time() - (place / _NOTE).stat().st_mtime > _FORSAKEN:
            (place / _NOTE).unlink(missing_ok=True)
            return
        try:
            data = json.loads((place / _NOTE).read_bytes())
            run, job = (str(data["project"]), int(data["run"])), str(data["job"])
            left = _left(data)
            followers, fence = int(data["followers"]), int(data["fence"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.broke("the note about a kept lane cannot be read; the lane is free", error, place=str(place))
            (place / _NOTE).unlink(missing_ok=True)
            return
        held = self._lanes.lock(place)
        if held is not None:
            self._kept.setdefault(run, {})[job] = _Kept(held, left, followers, fence)


def _note(kept: _Kept, run: Run, job: str) -> None:
    data = {
        "project": run[0],
        "run": run[1],
        "job": job,
        **_plain(kept.left),
        "followers": kept.followers,
        "fence": kept.fence,
    }
    write_atomic(kept.held.place / _NOTE, json.dumps(data).encode(), 0o600)


def _begun(held: Held) -> _Work:
    """Return what was in a lane when its job began, with an earlier process of the agent."""
    data = json.loads((held.place / _BEGUN).read_bytes())
    return _Work(held, _left(data), {path: tuple(seen) for path, seen in data["look"].items()})


def _plain(left: Left) -> dict[str, Any]:
    return {"history": sorted(left.history), "stamps": dict(left.stamps)}


def _left(plain: dict[str, Any]) -> Left:
    return Left(frozenset(plain["history"]), dict(plain["stamps"]))


def _forget(kept: _Kept) -> None:
    (kept.held.place / _NOTE).unlink(missing_ok=True)
    kept.held.give_back()
