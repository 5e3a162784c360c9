"""Room on a build host: checkouts that no run needs go by rule, those of runs stay, and a dry look removes nothing."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

from keepflow.agent.kept_images import KeptImages
from keepflow.agent.lanes import Lanes
from keepflow.agent.storage import Storage
from keepflow.core.pruning import Rule
from tests.agent.processes import Builder

MONTH = 30 * 86400.0


def used(lanes: Lanes, name: str, ago: float) -> Path:
    """Make a lane that was used so long ago."""
    project, _, rest = name.partition("/")
    held = lanes.take(project, rest.partition("-")[0])
    assert held.place == lanes.root / name
    (held.place / "work").mkdir()
    (held.place / "work" / "file").write_text("x" * 5000)
    held.give_back()
    os.utime(held.place / "lock", (time.time() - ago,) * 2)
    return held.place


def test_r77_a_checkout_that_no_job_used_for_long_goes_and_one_that_a_run_has_stays(tmp_path: Path) -> None:
    lanes = Lanes(tmp_path / "lanes")
    storage = Storage(lambda: Rule(unused=MONTH), lanes, KeptImages(tmp_path / "images"), None)
    old, fresh = used(lanes, "shop/protected-1", MONTH + 9), used(lanes, "other/fork-1", MONTH - 9)
    held = lanes.take("kept", "other")
    os.utime(held.place / "lock", (0, 0))
    assert [(one.kind, one.name) for one in storage.over()] == [("checkout", "shop/protected-1")]
    assert old.exists(), "a look removes nothing"
    [gone] = storage.prune()
    assert gone.size >= 5000
    assert (old.parent.exists(), fresh.exists(), held.place.exists()) == (False, True, True)
    assert storage.prune() == []
    held.give_back()
    again = lanes.take("shop", "protected")
    assert (again.place, again.tree.exists()) == (old, False)
    again.give_back()
    assert not [path for path in lanes.root.iterdir() if path.name.startswith(".")]


def test_r77_beyond_the_budget_the_checkouts_go_that_were_not_used_the_longest(tmp_path: Path) -> None:
    lanes = Lanes(tmp_path / "lanes")
    older, newer = used(lanes, "a/other-1", 5000), used(lanes, "b/other-1", 4000)
    sizes = {one.name: one.size for one in lanes.items()}
    rule = Rule(budget=sizes["b/other-1"])
    assert [one.name for one in Storage(lambda: rule, lanes, KeptImages(tmp_path / "i"), None).prune()] == ["a/other-1"]
    assert (older.exists(), newer.exists()) == (False, True)


def test_a_job_that_comes_while_a_lane_is_removed_gets_one_that_is_there(tmp_path: Path) -> None:
    """Lanes are taken and removed at once by threads: whoever holds one finds it in its place."""
    lanes, stop, wrong = Lanes(tmp_path / "lanes"), threading.Event(), list[str]()

    def removes() -> None:
        while not stop.is_set():
            for item in lanes.items():
                lanes.remove(item.name)

    thread = threading.Thread(target=removes)
    thread.start()
    try:
        for _ in range(300):
            held = lanes.take("shop", "other")
            if not held.place.exists() or (held.place / "lock").stat().st_ino != os.fstat(held.lock.fileno()).st_ino:
                wrong.append(str(held.place))
            held.give_back()
    finally:
        stop.set()
        thread.join(30)
    assert wrong == []


def test_r77_the_host_says_what_lies_there_and_a_dry_look_removes_nothing(builder: Builder) -> None:
    assert builder.run("echo x >made").end.state == "succeeded"
    [lane] = builder.agent.state.glob("lanes/*/*/lock")
    os.utime(lane, (0, 0))

    def told(*options: str) -> list[tuple[str, str, str]]:
        done = builder.agent.cli("storage", "--config", str(builder.agent.config), "-o", "json", *options)
        assert done.returncode == 0, done.stderr
        items = json.loads(done.stdout)["items"]
        return [(one["kind"], one["name"], one["becomes"]) for one in items if one["kind"] == "checkout"]

    assert told() == [("checkout", "shop/protected-1", "goes")]
    assert told("--prune", "--dry-run") == [("checkout", "shop/protected-1", "goes")]
    assert lane.exists()
    assert told("--prune") == [("checkout", "shop/protected-1", "removed")]
    assert not lane.exists()
    assert builder.run("cat hello.txt").end.state == "succeeded"
    shown = builder.agent.cli("storage", "--config", str(builder.agent.config))
    assert "kept: what was used in the last 720h" in shown.stdout
