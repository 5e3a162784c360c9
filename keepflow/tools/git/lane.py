"""An agent's kept checkout: moved from commit to commit in milliseconds, and clean each time.

The git directory lies apart from the working tree, where no job can write; the job sees files only. A lane belongs to
one run at a time, so a lock file found at the start was left by a killed process and is taken away.

When jobs have an account of their own, git works on the tree as that account, never as root: the tree is the account's,
and what one of its processes swaps for a link at the right moment would lead root's git anywhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from keepflow import errors
from keepflow.tools import processes
from keepflow.tools.files import write_unsynced
from keepflow.tools.git import onward
from keepflow.tools.git.checks import check_remote_url, check_sha
from keepflow.tools.git.mirror import init_bare
from keepflow.tools.git.remotes import LOCAL_TIMEOUT, NETWORK_TIMEOUT, environment
from keepflow.tools.lfs import POINTER_LIMIT, Pointer
from keepflow.tools.processes import Account

_CURRENT = "refs/keepflow/current"
_CHECKOUT_TIMEOUT = 300.0
_INDEX_LIMIT = 256 * processes.MIB
_GITLINK = (0o160000).to_bytes(4, "big")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MESSAGE_LIMIT = 256 * processes.MIB
_NO_ATTRIBUTES = b"* -text -eol -ident -filter !working-tree-encoding\n"


class Lane:
    """One working tree and its git directory; both are made when first needed.

    With `account` the tree belongs to that account, which can read the git directory and change nothing in it; the
    directory above both must be root's.
    """

    def __init__(self, git_dir: Path, work_tree: Path, account: Account | None = None) -> None:
        self.git_dir = git_dir.absolute()
        self.work_tree = work_tree.absolute()
        self._account = account

    def update(
        self,
        url: str,
        sha: str,
        header: str | None = None,
        *,
        ca_file: Path | None = None,
        allow_local: bool = False,
        timeout: float = NETWORK_TIMEOUT,
    ) -> None:
        """Fetch exactly this commit, without its history; nothing is fetched when it is the one already here.

        `header` is one HTTP header line with the job's credential. Raises BadRemote, CommandFailed, CommandTimeout.
        """
        check_remote_url(url, allow_local=allow_local)
        self._prepare()
        current = self.current()
        if current == check_sha(sha):
            return
        env = environment(url, header=header, ca_file=ca_file)
        if current is None or not self._went_on(url, current, sha, header, ca_file, timeout):
            self._fetch(url, sha, env, timeout)

    def _went_on(
        self, url: str, current: str, sha: str, header: str | None, ca_file: Path | None, timeout: float
    ) -> bool:
        """Fetch the quick way; False when git has to do it."""
        try:
            onward.fetch(self.git_dir, _CURRENT, url, current, sha, header, ca_file=ca_file, timeout=timeout)
        except onward.Unusual:
            return False
        return True

    def _fetch(self, url: str, sha: str, env: dict[str, str], timeout: float) -> None:
        options = ["--quiet", "--force", "--no-tags", "--depth=1", "--no-write-fetch-head"]
        self._git(
            ["fetch", *options, "--end-of-options", url, f"+{sha}:{_CURRENT}"],
            env,
            timeout,
        )

    def checkout(self, sha: str, *, plain: bool = False) -> None:
        """Make the working tree hold exactly the files of a fetched commit, whatever the last job left there.

        With `plain` every file gets the bytes that the commit has, whatever attributes in the tree say of line ends.
        Raises CommandFailed, for example when a job left files of another account: discard the lane then.
        """
        check_sha(sha)
        self._read_attributes(not plain)
        try:
            self._restore(sha)
        except errors.CommandFailed:
            _make_writable(self.work_tree)  # build tools leave read-only directories, which nothing can be removed from
            self._restore(sha)

    def current(self) -> str | None:
        """Return the commit that was fetched last."""
        try:
            return (self.git_dir / _CURRENT).read_text().strip()
        except FileNotFoundError:
            return None

    def message_of(self, sha: str) -> str:
        """Return the message of a fetched commit; raises CommandFailed when it is none."""
        done = self._git(["cat-file", "commit", check_sha(sha)], limit=_MESSAGE_LIMIT)
        return done.stdout.partition(b"\n\n")[2].decode(errors="replace")

    def objects_of(self, sha: str) -> set[str]:
        """Return the ids of all files and directories of a fetched commit."""
        done = self._git(["ls-tree", "-r", "-t", "-z", f"{check_sha(sha)}^{{tree}}"], limit=_INDEX_LIMIT)
        return {line.split(b" ", 3)[2][: len(sha)].decode() for line in done.stdout.split(b"\0") if line}

    def ignored(self, paths: Sequence[str]) -> set[str]:
        """Return those of some paths that the `.gitignore` files in the working tree name."""
        if not paths:
            return set()
        done = self._git(
            ["check-ignore", "--no-index", "-z", "--stdin"],
            account=self._account,
            input=b"\0".join(map(os.fsencode, paths)),
            check=False,  # 1: none of them
        )
        return {os.fsdecode(path) for path in done.stdout.split(b"\0") if path}

    def discard(self) -> None:
        """Remove both directories; the next update starts afresh."""
        _remove(self.work_tree)
        _remove(self.git_dir)

    def tidy(self) -> None:
        """Drop the objects of earlier commits; slow, for an idle agent."""
        self._git(["gc", "--quiet", "--prune=now"], timeout=NETWORK_TIMEOUT)

    def _restore(self, sha: str) -> None:
        with self._index() as index:
            for arguments in (["read-tree", "--reset", "-u", sha], ["clean", "-ffdxq"]):
                self._git(
                    arguments,
                    {**environment(), "GIT_INDEX_FILE": str(index)},
                    _CHECKOUT_TIMEOUT,
                    account=self._account,
                )
        for path in self._gitlinks(sha):
            try:
                _empty(self.work_tree, path, self._account)
            except OSError as error:
                sentence = f"{path}, the place of a submodule, cannot be emptied: {error.strerror}"
                raise errors.CommandFailed(sentence, argv=("rm",)) from None
        _remove_planted(self.work_tree)

    def pointers(self, sha: str) -> dict[str, tuple[Pointer, bool]]:
        """Return the pointer files of Git LFS in a fetched commit, by path, and whether each may be executed."""
        done = self._git(["ls-tree", "-r", "-l", "-z", f"{check_sha(sha)}^{{tree}}"], limit=_INDEX_LIMIT)
        small: dict[str, tuple[str, bool]] = {}
        for line in done.stdout.split(b"\0"):
            facts, _, path = line.partition(b"\t")
            mode, kind, oid, size = [*facts.split(), b"", b"", b"", b""][:4]
            if kind == b"blob" and mode != b"120000" and size.isdigit() and int(size) < POINTER_LIMIT:
                small[os.fsdecode(path)] = oid.decode(), mode == b"100755"
        asked = "".join(f"{oid}\n" for oid, _ in small.values())
        said = self._git(["cat-file", "--batch"], input=asked.encode(), limit=_INDEX_LIMIT).stdout
        found, at = dict[str, tuple[Pointer, bool]](), 0
        for name, (_, executable) in small.items():
            begin = said.index(b"\n", at) + 1
            end = begin + int(said[at:begin].split()[2])
            if (pointer := Pointer.parse(said[begin:end])) is not None:
                found[name] = pointer, executable
            at = end + 1
        return found

    def gitlinks(self, sha: str) -> dict[str, str]:
        """Return where a commit names commits of other repositories: path → commit."""
        done = self._git(["ls-tree", "-r", "-z", f"{check_sha(sha)}^{{tree}}"], limit=_INDEX_LIMIT)
        lines = (line.partition(b"\t") for line in done.stdout.split(b"\0") if line.startswith(b"160000 "))
        return {os.fsdecode(path): facts.split(b" ")[2].decode() for facts, _, path in lines}

    def _gitlinks(self, sha: str) -> list[str]:
        """Return the same paths, without a process where the index has none: it holds each mode as four bytes."""
        if _GITLINK not in (self.git_dir / "index").read_bytes():
            return []
        return list(self.gitlinks(sha))

    @contextlib.contextmanager
    def _index(self) -> Iterator[Path]:
        """Give git its index: the one in the git directory, or a copy for the account, which is taken back after."""
        kept = self.git_dir / "index"
        if self._account is None:
            yield kept
            return
        place = Path(tempfile.mkdtemp(dir=self.git_dir.parent, prefix="index-"))
        try:
            index = place / "index"
            if kept.exists():
                shutil.copyfile(kept, index)
                os.chown(index, *self._account)
            os.chown(place, *self._account)
            yield index
            write_unsynced(kept, _plain_bytes(index), 0o600)  # torn by a power cut, the lane is begun afresh
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _prepare(self) -> None:
        self.work_tree.mkdir(parents=True, exist_ok=True)
        if not (self.git_dir / "HEAD").exists():
            init_bare(self.git_dir)
        if self._account:
            os.chown(self.work_tree, *self._account, follow_symlinks=False)
            os.chown(self.git_dir, 0, self._account[1])
        self.git_dir.chmod(0o710 if self._account else 0o700)  # 0710: entered by the account's git, listed by nobody
        for lock in (*self.git_dir.glob("*.lock"), *self.git_dir.glob("refs/keepflow/*.lock")):
            lock.unlink(missing_ok=True)

    def _read_attributes(self, read: bool) -> None:
        """Let git read the attributes in the tree, or none; an index made in the other way does not count."""
        place = self.git_dir / "info" / "attributes"
        if place.exists() == read:
            (self.git_dir / "index").unlink(missing_ok=True)
            place.unlink(missing_ok=True)
        if not read and not place.exists():
            place.parent.mkdir(exist_ok=True)
            place.parent.chmod(0o755)
            write_unsynced(place, _NO_ATTRIBUTES)

    def _git(
        self,
        arguments: Sequence[str],
        env: dict[str, str] | None = None,
        timeout: float = LOCAL_TIMEOUT,
        *,
        account: Account | None = None,
        input: bytes | None = None,
        check: bool = True,
        limit: int = 8 * processes.MIB,
    ) -> processes.Done:
        places = {"GIT_DIR": str(self.git_dir), "GIT_WORK_TREE": str(self.work_tree)}
        return processes.run(
            ["git", *arguments],
            cwd=self.work_tree,
            env={**(env or environment()), **places},
            timeout=timeout,
            account=account,
            input=input,
            check=check,
            limit=limit,
        )


def _plain_bytes(path: Path) -> bytes:
    """Return what a file of another account holds, unless it is a link, a pipe or endless."""
    data = b""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                data = file.read(_INDEX_LIMIT + 1)
    if not data or len(data) > _INDEX_LIMIT:
        raise errors.CommandFailed(f"{path}: the index that git wrote is none", argv=("git",))
    return data


def _remove_planted(tree: Path) -> None:
    """Remove entries named `.git`, which git itself never looks at and so never cleans.

    Everything is named by an open directory: what a job swaps for a link meanwhile leads nowhere else.
    """
    for _, directories, files, here in os.fwalk(tree, follow_symlinks=False):
        for name in [name for name in directories if name.lower() == ".git"]:
            directories.remove(name)
            if stat.S_ISLNK(os.lstat(name, dir_fd=here).st_mode):
                os.unlink(name, dir_fd=here)
            else:
                shutil.rmtree(name, dir_fd=here)
        for name in files:
            if name.lower() == ".git":
                os.unlink(name, dir_fd=here)


def _empty(tree: Path, path: str, account: Account | None) -> None:
    """Make a directory that nothing is in, where git neither looks nor cleans; what a job put on the way goes.

    Every part is opened in the one before, and no link is followed.
    """
    *parents, name = path.split("/")
    here = os.open(tree, _DIRECTORY)
    try:
        for part in parents:
            following = _entered(here, part, account)
            os.close(here)
            here = following
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.lstat(name, dir_fd=here).st_mode):
                shutil.rmtree(name, dir_fd=here)
            else:
                os.unlink(name, dir_fd=here)
        os.close(_entered(here, name, account))
    finally:
        os.close(here)


def _entered(here: int, name: str, account: Account | None) -> int:
    with contextlib.suppress(OSError):
        return os.open(name, _DIRECTORY, dir_fd=here)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=here)
    os.mkdir(name, 0o755, dir_fd=here)
    found = os.open(name, _DIRECTORY, dir_fd=here)
    if account:
        os.fchown(found, *account)
    return found


def _make_writable(tree: Path) -> None:
    """Let the owner enter and change every directory below this one; links are not followed."""
    if os.geteuid() == 0:
        return  # needs no permission, and must not change the mode of whatever a job put in the way
    for parent, names, _ in os.walk(tree):
        for child in (Path(parent, name) for name in names):
            with contextlib.suppress(PermissionError):  # of another account: the next error says so
                if not child.is_symlink():
                    child.chmod(child.stat().st_mode | 0o700)


def _remove(path: Path) -> None:
    """Remove a file, link or tree; a link is never followed."""
    if path.is_dir() and not path.is_symlink():
        _make_writable(path)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
