"""How the master serves repositories to agents over smart HTTP: the process to start, as data."""

from __future__ import annotations

from pathlib import Path

from keepflow.tools.git.remotes import environment

_SETTINGS = {
    # An agent asks for the commit of its job by id, even when no branch points to it any more.
    "uploadpack.allowTipSHA1InWant": "true",
    "uploadpack.allowReachableSHA1InWant": "true",
    "uploadpack.allowAnySHA1InWant": "true",
}


def upload_pack_argv(mirror_path: Path, advertise: bool) -> tuple[list[str], dict[str, str]]:
    """Return (argv, whole environment) of the process that answers one request of a fetching git.

    With `advertise` it answers `GET info/refs`, else it reads the body of `POST git-upload-pack` from stdin. The caller
    adds `GIT_PROTOCOL` to the environment from the request's `Git-Protocol` header when that is `version=2`.
    """
    path = str(mirror_path.absolute())
    phase = ["--http-backend-info-refs"] if advertise else []
    return (
        ["git", "upload-pack", "--stateless-rpc", "--strict", *phase, path],
        environment(settings={**_SETTINGS, "safe.directory": path}),
    )


def receive_pack_argv(path: Path, advertise: bool, most: int) -> tuple[list[str], dict[str, str]]:
    """Return (argv, whole environment) of the process that takes one push; `most` bytes at most.

    Objects are checked one by one, and kept only when the whole push was taken.
    """
    where = str(path.absolute())
    phase = ["--http-backend-info-refs"] if advertise else []
    settings = {
        "receive.maxInputSize": str(most),
        "receive.fsckObjects": "true",
        "receive.denyDeletes": "true",
        "receive.denyNonFastForwards": "true",
        "receive.unpackLimit": "1",  # a workspace of ten thousand files is one file here
        "receive.autogc": "false",
        "receive.shallowUpdate": "false",
        "receive.advertisePushOptions": "false",
        "safe.directory": where,
    }
    argv = ["git", "receive-pack", "--stateless-rpc", *phase, where]
    return argv, environment(settings=settings)
