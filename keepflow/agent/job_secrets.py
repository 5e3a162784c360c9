"""Secrets lent to one job: opened in memory, given to the steps that ask for them, and taken away after each step.

On the disk of the agent they lie sealed to its key, with the order. A file of a secret belongs to the account of the
jobs (0600) and is there only while its step runs. No link that a repository or a job lays is followed on the way to it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from keepflow import errors
from keepflow.agent import checkout
from keepflow.agent.environment import Places
from keepflow.core.text import quoted
from keepflow.crypto.sealing import OpeningKey
from keepflow.executors.shell import Account
from keepflow.tools.files import write_unsynced
from keepflow.wire.messages import RunJob, SecretUse, job_secret_place

_LENT = "lent"  #: in the directory of an attempt: the secret files that lie in its checkout now


def opened(order: RunJob, opening: OpeningKey) -> dict[str, str]:
    """Return the values that came with an order, by name; one that does not open here is left out."""
    found = {}
    for one in order.secrets:
        place = job_secret_place(order.fence, order.project, one.name, one.version)
        with contextlib.suppress(errors.BadSeal, binascii.Error, UnicodeDecodeError):
            found[one.name] = opening.unseal(base64.b64decode(one.sealed), place).decode()
    return found


@contextlib.contextmanager
def given(
    uses: Sequence[SecretUse],
    values: Mapping[str, str],
    places: Places,
    account: Account | None,
    *,
    token: str,
    again: bool = False,
) -> Iterator[dict[str, str]]:
    """Give a step its secrets and yield the variables that come with them; its files are gone afterwards.

    `token` is in the names of what is laid aside for this step; with `again` an earlier process of the agent has given
    them already. Raises UsageError for a secret that is not optional and did not come with the job, or whose file has
    no place in the checkout.
    """
    missing = [use.name for use in uses if use.name not in values and not use.optional]
    if missing:
        names = ", ".join(map(quoted, missing))
        raise errors.UsageError(f"no value of {names} came with this job", code="no-secret")
    uses = [use for use in uses if use.name in values]
    variables = {use.env: values[use.name] for use in uses if use.env}
    with contextlib.ExitStack() as stack:
        for number, use in enumerate(uses):
            value, own = values[use.name].encode(), f"secret-{token}-{number}"
            if use.file:
                aside = places.temporary.parent / own
                stack.enter_context(_in_checkout(places.workspace, use.file, value, aside, account, again))
            elif use.file_env:
                file = _elsewhere(places.temporary, own, use.name, value, account, again)
                variables[use.file_env] = str(stack.enter_context(file))
        yield variables


def note(attempt: Path, tree: Path, uses: Sequence[SecretUse]) -> None:
    """Write down in the directory of an attempt which files a step is about to be given in its checkout."""
    if files := [use.file for use in uses if use.file]:
        write_unsynced(attempt / _LENT, json.dumps({"tree": str(tree), "files": files}).encode(), 0o600)


def settle(attempt: Path) -> None:
    """Strike out what `note` wrote down: the files are gone."""
    (attempt / _LENT).unlink(missing_ok=True)


def take_back(attempt: Path, account: Account | None) -> list[str]:
    """Remove the files that a step was given in its checkout and that nobody took away, and return which."""
    noted, gone = attempt / _LENT, []
    if not noted.exists():
        return []
    lent = json.loads(noted.read_bytes())
    for path in lent["files"]:
        with contextlib.suppress(OSError):  # the lane is gone, or the step has moved it
            parents, name = checkout.split(path)
            directory = checkout.enter(Path(lent["tree"]), parents, account)
            try:
                os.unlink(name, dir_fd=directory)
                gone.append(path)
            finally:
                os.close(directory)
    noted.unlink()
    return gone


@contextlib.contextmanager
def _in_checkout(
    root: Path, path: str, value: bytes, aside: Path, account: Account | None, again: bool
) -> Iterator[None]:
    """Write a file below `root`; what was in its place is put `aside` and comes back afterwards."""
    with contextlib.ExitStack() as stack:
        try:
            parents, name = checkout.split(path)
            directory = checkout.enter(root, parents, account)
            stack.callback(os.close, directory)
            if again:
                _remove(directory, name)
            replaced = os.path.lexists(aside) if again else _put_aside(directory, name, aside)
            _write(directory, name, value, account)
        except OSError as error:
            sentence = f"the secret file {quoted(path)} has no place in the checkout: {error.strerror}"
            raise errors.UsageError(sentence, code="bad-path") from None
        try:
            yield
        finally:
            _remove(directory, name)
            if replaced:
                with contextlib.suppress(OSError):
                    os.rename(aside, name, dst_dir_fd=directory)


@contextlib.contextmanager
def _elsewhere(place: Path, own: str, name: str, value: bytes, account: Account | None, again: bool) -> Iterator[Path]:
    """Write a file outside of the checkout, where also a container of the job sees it, in a directory of its own."""
    temporary = os.open(place, checkout.DIRECTORY)
    try:
        with contextlib.suppress(*((FileExistsError,) if again else ())):
            os.mkdir(own, 0o700, dir_fd=temporary)
        directory = os.open(own, checkout.DIRECTORY, dir_fd=temporary)
    finally:
        os.close(temporary)
    try:
        checkout.own(directory, account)
        if again:
            _remove(directory, name)
        _write(directory, name, value, account)
        yield place / own / name
    finally:
        _remove(directory, name)
        os.close(directory)


def _remove(directory: int, name: str) -> None:
    with contextlib.suppress(OSError):  # the step may have moved or removed it: then it is not there
        os.unlink(name, dir_fd=directory)


def _put_aside(directory: int, name: str, aside: Path) -> bool:
    """Move what a secret file takes the place of out of the way; False when there is nothing."""
    try:
        seen = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(seen.st_mode):
        raise IsADirectoryError(None, "there is a directory of that name")
    os.rename(name, aside, src_dir_fd=directory)
    return True


def _write(directory: int, name: str, value: bytes, account: Account | None) -> None:
    with os.fdopen(checkout.new_file(directory, name, 0o600, account), "wb") as file:
        file.write(value)
