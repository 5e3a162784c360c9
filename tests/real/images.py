"""Base images without an image registry: made from Debian's own packages, kept as tar files, imported into any engine.

`busybox`   the static shell and its links
`app`       busybox and a Python without extension libraries: what the sample application is built from
`compress`  busybox and the minifier `esbuild`: what the sample's Dockerfile.dist is built from

Where apt is missing, name images your engine can pull: KEEPFLOW_TEST_APP_IMAGE=python:3.11-slim and so on.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

KINDS = ("busybox", "app", "compress")
RECIPE = "4"  #: raise it when a recipe below changes
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CanRunDocker(Protocol):
    """Whatever can run the docker command line against one engine."""

    def docker(self, *argv: str, seconds: float = ...) -> str:
        """Run `docker ARGV…` and return its standard output."""


def cache_dir() -> Path:
    """Return the directory of everything slow to make, shared by all runs of the same user."""
    chosen = os.environ.get("KEEPFLOW_TEST_CACHE")
    path = Path(chosen) if chosen else Path.home() / ".cache" / "keepflow-test"
    path.mkdir(parents=True, exist_ok=True)
    return path


def image_name(kind: str) -> str:
    """Return the name under which a base image is found on an engine."""
    if kind not in KINDS:
        raise ValueError(f"no base image of kind {kind!r}, only {', '.join(KINDS)}")
    return os.environ.get(f"KEEPFLOW_TEST_{kind.upper()}_IMAGE") or f"keepflow-test/{kind}"


def base_image(engine: CanRunDocker, kind: str) -> str:
    """Make sure that an engine has the base image of a kind, and return its name.

    Raises RuntimeError when it can neither be made from Debian packages nor pulled.
    """
    name = image_name(kind)
    label = f"{kind}-{RECIPE}"
    found = engine.docker(
        "image", "ls", "--quiet", "--filter", f"reference={name}", "--filter", f"label=keepflow-test={label}"
    )
    if found:
        return name
    if not name.startswith("keepflow-test/"):
        if not engine.docker("image", "ls", "--quiet", name):
            engine.docker("pull", name, seconds=600)
        return name
    archive = root_archive(kind)
    changes = [f"LABEL keepflow-test={label}", f"ENV PATH={_PATH}", 'CMD ["sh"]']
    engine.docker("import", *(part for change in changes for part in ("--change", change)), str(archive), name)
    return name


def root_archive(kind: str) -> Path:
    """Return the tar file of a base image's root directory, making it when the cache has none."""
    archive = cache_dir() / f"{kind}-{RECIPE}-{os.uname().machine}.tar.gz"
    if not archive.exists():
        with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="making-") as work:
            root = Path(work) / "root"
            _lay_busybox(root)
            _MORE[kind](root)
            unfinished = Path(work) / "root.tar.gz"
            _pack(root, unfinished)
            unfinished.replace(archive)
    return archive


def _lay_busybox(root: Path) -> None:
    """Put the static shell, one link per applet and the files every program expects into a root directory."""
    for directory in ("bin", "etc", "usr/bin", "root", "proc", "sys", "dev"):
        (root / directory).mkdir(parents=True)
    (root / "tmp").mkdir(mode=0o1777)
    (root / "tmp").chmod(0o1777)
    found = shutil.which("busybox")
    program = Path(found).resolve() if found else _unpack(("busybox-static",), root.parent / "busybox") / "bin/busybox"
    if not _is_static(program):
        program = _unpack(("busybox-static",), root.parent / "busybox") / "bin/busybox"
    shutil.copy2(program, root / "bin/busybox")
    applets = subprocess.run([str(program), "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")


def _is_static(program: Path) -> bool:
    """Say whether a program needs no dynamic loader (an ELF file names one in plain text)."""
    return b"/ld-linux" not in program.read_bytes() and b"/ld-musl" not in program.read_bytes()


def _lay_nothing(root: Path) -> None:
    """A busybox image has nothing more."""


def _lay_python(root: Path) -> None:
    """Add the distribution's Python: interpreter and standard library, already compiled, without tests and locales."""
    listed = _apt("apt-cache", "depends", "python3-minimal", cwd=root)
    match = re.search(r"python3\.\d+", listed)
    if match is None:
        raise RuntimeError("apt does not know python3-minimal: run `apt-get update`, or set KEEPFLOW_TEST_APP_IMAGE")
    python = match.group()
    wanted = (f"{python}-minimal", f"lib{python}-minimal", f"lib{python}-stdlib", "libc6", "libexpat1", "zlib1g")
    tree = _unpack(wanted, root.parent / "python")
    for waste in (f"usr/lib/{python}/lib2to3", f"usr/lib/{python}/ensurepip"):
        shutil.rmtree(tree / waste, ignore_errors=True)
    _lay_tree(tree, root)
    (root / "usr/bin/python3").symlink_to(python)
    if os.geteuid() == 0:  # only root may enter the tree
        # Packages compile when they are configured, and these never are; without it every start would compile.
        compiling = ("/usr/bin/python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")
        subprocess.run(["chroot", str(root), *compiling, f"/usr/lib/{python}"], check=True, capture_output=True)


def _lay_esbuild(root: Path) -> None:
    """Add the minifier and the C library it needs."""
    _lay_tree(_unpack(("esbuild", "libc6"), root.parent / "esbuild"), root)


def _lay_tree(tree: Path, root: Path) -> None:
    """Copy unpacked packages into a root directory, without documents, locales and character sets."""
    for waste in (tree / "usr/share", *tree.glob("lib/*/gconv"), *tree.glob("usr/lib/*/gconv")):
        shutil.rmtree(waste, ignore_errors=True)
    shutil.copytree(tree, root, symlinks=True, dirs_exist_ok=True)
    for directory in ("lib", "lib64"):  # where /usr is merged, packages leave these links to the system's first set-up
        if not (root / directory).exists() and (root / "usr" / directory).exists():
            (root / directory).symlink_to(f"usr/{directory}")


_MORE: dict[str, Callable[[Path], None]] = {"busybox": _lay_nothing, "app": _lay_python, "compress": _lay_esbuild}


def _unpack(packages: tuple[str, ...], into: Path) -> Path:
    """Download Debian packages and unpack them into a directory, without installing anything."""
    downloads = into.with_name(into.name + "-packages")
    downloads.mkdir()
    downloads.chmod(0o777)  # apt downloads as its own user
    downloads.parent.chmod(0o755)
    _apt("apt-get", "download", *packages, cwd=downloads)
    for package in sorted(downloads.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(into)], check=True)
    return into


def _apt(*argv: str, cwd: Path) -> str:
    """Run an apt program and return what it printed; a missing apt or package is told in plain words."""
    if shutil.which(argv[0]) is None:
        raise RuntimeError(
            f"{argv[0]} is missing: base images need Debian's apt, or name images by KEEPFLOW_TEST_*_IMAGE"
        )
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed; `apt-get update` may help:\n{done.stderr.strip()[-800:]}")
    return done.stdout


def _pack(root: Path, archive: Path) -> None:
    """Write a root directory as a tar file that is the same whenever its contents are the same."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = 1_600_000_000
        return entry

    with (
        archive.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for child in sorted(root.iterdir()):
            tar.add(child, arcname=child.name, filter=plain)
