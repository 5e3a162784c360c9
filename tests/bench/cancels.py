"""From a person's cancel to the end of the last process; floor: a signal to each of the same processes by hand."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Figure, in_turn
from tests.real.demo.files import PROJECT
from tests.real.demo.repository import instead
from tests.real.demo.world import World
from tests.real.waiting import wait_until

_ROUNDS, _STUBBORN_ROUNDS = 7, 2
_GRACE = 10.0  #: seconds that a cancelled script has before SIGKILL
_COUNT = 20
#: Half of the processes leave group, session and parent.
_TREE = """
for n in 1 2 3 4 5 6 7 8 9 10; do
  sh -c '{trap} while :; do sleep 0.2; done' {word} &
  setsid sh -c '{trap} (while :; do sleep 0.2; done) & exit' {word} &
done
{trap} wait; while :; do sleep 0.2; done
"""


def figures(world: World, directory: Path) -> Iterator[Figure]:
    """Measure scripts that hear SIGTERM, and such that do not."""
    trap = 'trap "" TERM;'
    yield _figure(world, directory, "cancel", "", _ROUNDS)
    figure = _figure(world, directory, "cancel_stubborn", trap, _STUBBORN_ROUNDS)
    above = sorted(figure.keepflows)[len(figure.keepflows) // 2] - _GRACE * 1000
    figure.notes.append(f"{above:.0f} ms above the {_GRACE:g} s that a script has to clean up")
    yield figure


def _figure(world: World, directory: Path, name: str, trap: str, rounds: int) -> Figure:
    word = f"kf-bench-{name.replace('_', '-')}"
    script = _TREE.format(trap=trap, word=word)
    (directory / f"{name}.sh").write_text(script)
    lines = "".join(f"          {line}\n" for line in script.strip().splitlines())
    flow = f"version: 1\nflows:\n  {word}:\n    on: {{push: {word}}}\n    steps:\n      - run: |\n{lines}"
    world.repository.edit(word, {".keepflow.yml": instead(flow)}, "Start many processes")

    def floor() -> float:
        started = subprocess.Popen(["sh", directory / f"{name}.sh"], start_new_session=True, stdout=subprocess.DEVNULL)
        _all_there(word)
        began = time.monotonic()
        started.kill()
        while living := _living(word):
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        started.wait()
        return (time.monotonic() - began) * 1000

    def mine() -> float:
        _, sha = world.repository.change(word)
        world.repository.push(word)
        number = world.master.run_of(sha)["number"]
        _all_there(word)
        began = time.monotonic()
        world.master.api.post(f"/projects/{PROJECT}/runs/{number}/cancel")
        wait_until(lambda: not _living(word), 60, "the end of the last process", every=0.001)
        took = (time.monotonic() - began) * 1000
        if (state := world.master.ended(number)["state"]) != "cancelled":
            raise RuntimeError(f"the cancelled run {state}")
        return took

    floors, mines = in_turn(rounds, floor, mine)
    return Figure(name, "ms", floors, mines, [f"{_COUNT} processes, half of them away from group, session and parent"])


def _all_there(word: str) -> None:
    wait_until(lambda: len(_living(word)) >= _COUNT, 60, f"{_COUNT} processes of {word}")


def _living(word: str) -> list[int]:
    """List the processes whose command line ends with this word."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if line.endswith(f"\0{word}\0".encode()):
                found.append(int(entry.name))
    return found
