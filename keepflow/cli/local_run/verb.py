"""What `keepflow run FLOW --local` does: it says what it works on, runs it, and its exit code mirrors the result."""

from __future__ import annotations

import getpass
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from keepflow.cli import output, watching
from keepflow.cli.flow_files import flow_file_at, read_flow_file
from keepflow.cli.local_run import desk
from keepflow.cli.local_run.checkout import Checkout, checkout
from keepflow.cli.local_run.course import Course
from keepflow.core.events import Event, EventKind
from keepflow.core.flows import Flow, FlowFile
from keepflow.core.inputs import given_inputs
from keepflow.core.names import slug
from keepflow.core.planning import plan
from keepflow.core.states import State
from keepflow.core.text import did_you_mean, quoted
from keepflow.errors import NotFound


class _ToldToEnd(KeyboardInterrupt):
    """SIGTERM or SIGHUP: the same as Ctrl-C, but nobody sits there."""


def run_locally(flow: str, ref: str, inputs: Mapping[str, str], file: Path | None) -> int:
    """Run a flow of the checkout in this directory and return the exit code; raises KeyboardInterrupt at Ctrl-C.

    Raises UsageError, ConfigError and NotFound for what cannot be run at all.
    """
    code, woken = checkout(Path.cwd(), ref), threading.Event()
    name = f"{slug(code.root.name)}/{flow}"
    if not file and not ref:
        flow_file_at(code.root)  # said before anything is copied, which may be a lot where nobody meant it
    with desk.desk(desk.root(), name, woken.set) as place:
        left_out = code.copy(place.tree)
        flow_file = read_flow_file(file or flow_file_at(place.tree), shown=file)
        chosen = _chosen(flow_file, flow)
        left_out = code.add_submodules(place.tree, left_out, chosen.checkout.submodules)
        event = _event(code, given_inputs(chosen, inputs))
        output.say(f"local run of {name}: {code.sentence}")
        for repository in left_out:
            output.say(f"left out: {repository}, a repository of its own")
        course = Course(
            slug(code.root.name), plan(chosen, flow_file), event, place, woken, watching.writing(), output.say
        )
        return _to_its_end(course, name)


def _to_its_end(course: Course, name: str) -> int:
    started = time.monotonic()
    try:
        with _heeding_signals():
            end = course.run()
    except _ToldToEnd:
        output.say(f"{name} {output.painted('cancelled')}: told to end; its processes are gone")
        return watching.CANCELLED
    except KeyboardInterrupt:
        output.say(f"\n{name} {output.painted('cancelled')}; its processes are gone")
        raise
    why = f": {end.reason.sentence}" if end.state != State.SUCCEEDED else ""
    output.say(f"{name} {output.painted(end.state.value)} locally in {time.monotonic() - started:.1f} s{why}")
    return watching.exit_code(end.state.value)


def _chosen(flow_file: FlowFile, flow: str) -> Flow:
    if flow not in flow_file.flows:
        hint = did_you_mean(flow, flow_file.flows) or f"; there are: {', '.join(flow_file.flows)}"
        raise NotFound(f"the flow file has no flow {quoted(flow)}{hint}", code="no-flow")
    return flow_file.flows[flow]


def _event(code: Checkout, inputs: dict[str, str]) -> Event:
    try:
        actor = getpass.getuser()
    except (KeyError, OSError):
        actor = ""
    return Event(EventKind.MANUAL, code.ref, code.sha, message=code.message, actor=actor, inputs=inputs)


@contextmanager
def _heeding_signals() -> Iterator[None]:
    """Take SIGTERM and a closed terminal as a wish to end: no process of a step outlives the run."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise _ToldToEnd

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        sys.stdout.flush()
        for number, handler in before.items():
            signal.signal(number, handler)
