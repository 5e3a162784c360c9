"""Taking a world away, whatever is left of it: the same code ends a world in good order and after its maker was killed.

Everything is found by names and marks of this one world: processes by a variable in their environment, what the engine
holds by the world's image name, everything else by the world's directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from functools import partial
from pathlib import Path

from keepflow.proxies._own import OwnNginx
from keepflow.tools.registry_plan import Plan
from keepflow.tools.registry_server import RegistryServer
from tests.real.demo.commands import MARK
from tests.real.engines import SYSTEM_SOCKET, Engine, answers
from tests.real.leftovers import STATE, alive, one_at_a_time, orphaned, read_record
from tests.real.waiting import wait_until

_PREFIX = "world-"


def directory_of(tag: str) -> Path:
    """Return where everything of a world lies."""
    return STATE / f"{_PREFIX}{tag}"


def image_of(directory: Path) -> str:
    """Return the name that all images, containers, networks and volumes of a world begin with or contain."""
    return f"keepwork-{directory.name.removeprefix(_PREFIX)}"


def sweep_worlds() -> list[str]:
    """Remove the worlds whose maker has ended without closing them; return their names. Safe to call any time."""
    with one_at_a_time():
        swept = [directory for directory in sorted(STATE.glob(f"{_PREFIX}*")) if orphaned(directory)]
        for directory in swept:
            remove_world(directory)
    return [directory.name for directory in swept]


def remove_world(directory: Path) -> None:
    """Remove a world: processes first, then what the engine holds, then files. What is gone already is passed over."""
    wait_until(lambda: not _kill_marked(directory.name), 20, f"the end of all processes of {directory.name}")
    OwnNginx(directory / "home-front" / "nginx", "nginx").stop()
    plan = Plan.saved(directory / "home")
    if plan is not None:
        RegistryServer(plan).down()
        certificates = Path("/etc/docker/certs.d")
        shutil.rmtree(certificates / plan.called, ignore_errors=True)
        with contextlib.suppress(OSError):  # somebody else's are there, too
            certificates.rmdir()
    _clear_engine(Path(read_record(directory).get("engine", SYSTEM_SOCKET)), image_of(directory))
    for child in sorted(directory.iterdir(), key=lambda path: path.name == "host.json"):  # the record goes last
        wait_until(partial(_delete, child), 20, f"removal of {child}")
    directory.rmdir()


def marked(name: str) -> list[int]:
    """Return the processes of a world: those that carry its mark, and those of scripts that its agent runs."""
    mark = f"{MARK}={name}".encode()
    workspace = f"WORKSPACE={STATE / name}/".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in variables or any(one.startswith(workspace) for one in variables):
            found.append(int(entry.name))
    return found


def held_by(engine: Engine, name: str) -> dict[str, list[str]]:
    """Return what an engine holds of a world: names of containers, networks, volumes and images."""
    found = {
        "container": engine.docker("container", "ls", "--all", "--format", "{{.Names}}"),
        "network": engine.docker("network", "ls", "--format", "{{.Name}}"),
        "volume": engine.docker("volume", "ls", "--format", "{{.Name}}"),
        "image": engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}"),
    }
    return {
        noun: [one for one in listed.split() if name in one and not one.endswith("<none>")]
        for noun, listed in found.items()
    }


def _kill_marked(name: str) -> list[int]:
    """Kill every process of a world but this one, and return those that were still there."""
    doomed = [pid for pid in marked(name) if pid != os.getpid() and alive(pid)]
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return doomed


def _clear_engine(socket: Path, name: str) -> None:
    """Remove what an engine holds of a world; an engine that is gone holds nothing."""
    if not answers(socket):
        return
    engine = Engine(socket.parent)
    engine.socket = socket
    for noun, names in held_by(engine, name).items():
        if names:
            engine.attempt(noun, "rm", *([] if noun == "network" else ["--force"]), *names)


def _delete(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    return True
