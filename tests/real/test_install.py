"""agents/install.sh for real, below a directory of its own: a new host, the same again, a broken-off one, an update."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from keepflow.cli.bootstrap.wheel import own_wheel
from tests.real.parts import find, need, need_root
from tests.real.wheelhouse import fill

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

SCRIPT = Path(__file__).parent.parent.parent / "agents" / "install.sh"


@dataclass
class Place:
    """A directory that is a host's root, and the wheels to install from."""

    root: Path
    wheels: Path
    wheel: Path

    @property
    def opt(self) -> Path:
        return self.root / "opt" / "keepflow"

    @property
    def config(self) -> Path:
        return self.root / "etc" / "keepflow" / "agent.yml"

    def install(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPT, "--wheelhouse", str(self.wheels), *argv],
            env={"PATH": os.environ["PATH"], "ROOT": str(self.root), "PYTHON": sys.executable, **env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def in_use(self) -> str:
        return str((self.opt / "bin").readlink())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    need_root()
    made = tmp_path_factory.mktemp("install")
    (made / "wheels").mkdir()
    fill(made / "wheels")
    name, wheel = own_wheel()
    (made / name).write_bytes(wheel)
    return Place(made / "root", made / "wheels", made / name)


def test_a_host_is_installed_once_and_updated_by_one_rename(place: Place) -> None:
    unfinished = subprocess.run(["sha256sum", place.wheel], capture_output=True, text=True, check=True).stdout[:16]
    (place.opt / "venvs" / unfinished / "bin").mkdir(parents=True)
    (place.opt / "venvs" / unfinished / "half").write_text("of a run that was broken off")
    first = place.install(str(place.wheel))
    assert first.returncode == 0, first.stderr
    assert not (place.opt / "venvs" / unfinished / "half").exists(), "half an environment is made anew"
    told = subprocess.run([place.opt / "bin" / "keepflow", "version"], capture_output=True, text=True, check=True)
    assert told.stdout.strip() in first.stdout
    unit = place.root / "etc" / "systemd" / "system" / "keepflow-agent.service"
    assert f"ExecStart={place.opt}/bin/keepflow agent run --config {place.config}" in unit.read_text()
    assert f"KEEPFLOW_AGENT_STATE={place.root}/var/lib/keepflow/agent" in unit.read_text()
    if find("systemd-analyze"):
        checked = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")

    place.config.write_text("mine")
    second = place.install(str(place.wheel))
    assert second.returncode == 0, second.stderr
    assert all(line.partition(": ")[2].startswith("already") for line in second.stdout.splitlines()), second.stdout
    assert place.config.read_text() == "mine"

    # An update is another environment beside the one in use; the one before stays for going back.
    before = place.in_use()
    newer = _another(place, "newer")
    running = subprocess.Popen(
        [place.opt / before / "python", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    )
    try:
        third = place.install(str(newer))
        assert third.returncode == 0, third.stderr
        assert place.in_use() != before
        assert f"the one before is in {place.opt}/{Path(before).parent}" in third.stdout
        assert place.install(str(_another(place, "newest"))).returncode == 0
        assert (place.opt / before / "keepflow").exists(), "something runs from it"
    finally:
        running.kill()
        running.communicate()
    second_last = place.in_use()
    assert place.install(str(place.wheel)).returncode == 0
    assert place.in_use() == before, "going back is installing the earlier wheel"
    assert {path.name for path in (place.opt / "venvs").iterdir()} == {
        Path(link).parent.name for link in (before, second_last)
    }


def _another(place: Place, name: str) -> Path:
    """Return another wheel of the same name: one more file is in it."""
    made = place.wheel.with_name(name) / place.wheel.name
    made.parent.mkdir()
    made.write_bytes(place.wheel.read_bytes())
    with zipfile.ZipFile(made, "a") as wheel:
        wheel.writestr(f"keepflow/_data/{name}", name)
    return made


def test_a_package_that_cannot_be_installed_leaves_what_is_in_use(place: Place, tmp_path: Path) -> None:
    broken = tmp_path / place.wheel.name
    broken.write_bytes(b"no wheel")
    done = place.install(str(broken))
    assert done.returncode == 1
    assert "pip could not install" in done.stderr
    assert subprocess.run([place.opt / "bin" / "keepflow", "version"], capture_output=True, check=False).returncode == 0


def test_another_agent_yml_is_replaced_only_when_asked_and_kept_beside(place: Place, tmp_path: Path) -> None:
    (tmp_path / "agent.yml").write_text("theirs")
    place.config.write_text("mine")
    refused = place.install("--config", str(tmp_path / "agent.yml"), str(place.wheel))
    assert (refused.returncode, place.config.read_text()) == (1, "mine")
    assert "--replace-config" in refused.stderr
    done = place.install("--config", str(tmp_path / "agent.yml"), "--replace-config", str(place.wheel))
    assert (done.returncode, place.config.read_text()) == (0, "theirs"), done.stderr
    assert place.config.with_name("agent.yml.before").read_text() == "mine"


@pytest.mark.parametrize(
    ("argv", "env", "word"),
    [
        (("/nonexistent.whl",), {}, "is not there"),
        ((), {"PYTHON": "/nonexistent/python"}, "is missing"),
        ((), {"ROOT": "relative"}, "absolute"),
        (("--config", "/nonexistent.yml"), {}, "cannot be read"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_done(
    place: Place, argv: tuple[str, ...], env: dict[str, str], word: str
) -> None:
    done = place.install(*argv, **env)
    assert (done.returncode, word in done.stderr) == (1, True), done.stderr


def test_both_units_are_ones_that_systemd_takes(tmp_path: Path) -> None:
    need("systemd-analyze")
    for name in ("keepflow-agent.service", "keepflow-master.service"):
        text = (SCRIPT.parent / name).read_text().replace("/opt/keepflow/bin/keepflow", "/bin/true")
        (tmp_path / name).write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", tmp_path / name], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), name
