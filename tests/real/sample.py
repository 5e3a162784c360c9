"""The sample application as a git repository of its own, ready to be pushed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.real.load_process import ROOT

SOURCES = ROOT / "dockerfiles" / "sample"
SCRIPTS = ("build-image.sh", "build-dist.sh", "push-image.sh", "restart-server.sh")


def write_sample(directory: Path, *, app: str, compress: str) -> Path:
    """Copy the sample application and its scripts into a directory, and name the base images of both Dockerfiles.

    `app` and `compress` are images an engine has or can pull, as `base_image` returns them.
    """
    shutil.copytree(SOURCES, directory, dirs_exist_ok=True)
    scripts = directory / "scripts"
    scripts.mkdir(exist_ok=True)
    for script in SCRIPTS:
        shutil.copy2(ROOT / "scripts" / script, scripts / script)
    _set_argument(directory / "Dockerfile", "BASE", app)
    _set_argument(directory / "Dockerfile.dist", "COMPRESS", compress)
    return directory


def _set_argument(dockerfile: Path, name: str, value: str) -> None:
    """Change the default of a build argument."""
    text, changed = re.subn(rf"^ARG {name}=.*$", f"ARG {name}={value}", dockerfile.read_text(), flags=re.MULTILINE)
    if changed != 1:
        raise ValueError(f"{dockerfile} has no line 'ARG {name}=…'")
    dockerfile.write_text(text)


def make_repository(directory: Path, *, app: str, compress: str, branch: str = "master") -> Path:
    """Write the sample application and commit it on a branch of a new git repository."""
    write_sample(directory, app=app, compress=compress)
    git(directory, "init", "--quiet", f"--initial-branch={branch}")
    commit(directory, "Add the application")
    return directory


def set_marker(directory: Path, marker: str) -> None:
    """Change what the page shows, as a developer would; the change is not committed yet."""
    (directory / "www" / "marker.txt").write_text(marker + "\n")


def commit(directory: Path, message: str) -> str:
    """Commit everything in a working tree and return the commit's id."""
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message", message)
    return git(directory, "rev-parse", "HEAD")


def git(directory: Path, *argv: str) -> str:
    """Run git in a directory as a person of the tests, and return its trimmed output."""
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *who, *argv], cwd=directory, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"git {' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout.strip()
