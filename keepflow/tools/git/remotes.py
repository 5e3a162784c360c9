"""Where commits come from: addresses with their credential, and the environment that every git process gets.

Credentials travel in environment variables and files, never in argv, in an address or in a git configuration on disk.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keepflow import errors
from keepflow.tools import processes
from keepflow.tools.git.checks import check_file_argument, check_ref, check_remote_url, check_sha

MINIMUM_VERSION = (2, 34)
NETWORK_TIMEOUT = 600.0  #: seconds for one fetch; a stalled transfer ends earlier (http.lowSpeedTime)
LOCAL_TIMEOUT = 60.0

_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.fsync": "committed,reference",
    "core.logAllRefUpdates": "false",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "credential.helper": "",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "transfer.fsckObjects": "true",
    # Harmless faults of old importers that every large forge lets pass; refusing them would refuse real projects.
    "fetch.fsck.badTimezone": "ignore",
    "fetch.fsck.missingSpaceBeforeDate": "ignore",
    "fetch.fsck.zeroPaddedFilemode": "ignore",
    # A redirect would take the credential along to a host nobody configured.
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "500",
    "http.lowSpeedTime": "60",
}
_SSH_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "IdentitiesOnly=yes",
    "PasswordAuthentication=no",
    "ForwardAgent=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "ControlMaster=no",
    "UpdateHostKeys=no",
    "GlobalKnownHostsFile=/dev/null",
    "ConnectTimeout=15",
    "ServerAliveInterval=15",
)


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository elsewhere and how to prove oneself to it. `token` may be `user:password`."""

    url: str
    token: str | None = field(default=None, repr=False)
    ssh_key_file: Path | None = None
    known_hosts_file: Path | None = None
    allow_local: bool = False

    def environment(self) -> dict[str, str]:
        """Return the whole environment of a git process that talks to this remote; raises BadRemote."""
        url = check_remote_url(self.url, allow_local=self.allow_local)
        if url.startswith(("http://", "https://")):
            return environment(url, header=_authorization(self.token) if self.token else None)
        if url.startswith(("/", "file://")):
            return environment(url)
        if self.known_hosts_file is None or self.ssh_key_file is None:
            raise errors.BadRemote(
                f"{url}: an ssh address needs ssh_key_file and known_hosts (ssh-keyscan HOST, then compare the key)"
            )
        return environment(url) | {
            "GIT_SSH_COMMAND": _ssh_command(self.known_hosts_file, self.ssh_key_file),
            "GIT_SSH_VARIANT": "ssh",
        }


def environment(
    url: str | None = None,
    *,
    header: str | None = None,
    ca_file: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the whole environment of a git process: own configuration only, no prompts, only the needed protocol.

    `header` is sent to the host of `url` alone. Without `url` no transport works at all.
    """
    configuration = {**_SETTINGS, **(settings or {})}
    if url and header:
        configuration[f"http.{'/'.join(url.split('/')[:3])}/.extraHeader"] = _one_line(header)
    if ca_file:
        configuration["http.sslCAInfo"] = str(ca_file)
    numbered = enumerate(configuration.items())
    return processes.clean_env(
        HOME="/nonexistent",
        GIT_CONFIG_NOSYSTEM="1",
        GIT_CONFIG_GLOBAL="/dev/null",
        GIT_ATTR_NOSYSTEM="1",
        GIT_TERMINAL_PROMPT="0",
        GIT_PROTOCOL_FROM_USER="0",
        GIT_ALLOW_PROTOCOL=_protocol(url),
        GIT_NO_REPLACE_OBJECTS="1",
        GIT_LFS_SKIP_SMUDGE="1",
        GIT_CONFIG_COUNT=str(len(configuration)),
        **{
            name: value
            for n, (key, setting) in numbered
            for name, value in ((f"GIT_CONFIG_KEY_{n}", key), (f"GIT_CONFIG_VALUE_{n}", setting))
        },
    )


_NO_PULLS = ("--heads", "--tags")
_PULLS = ("refs/heads/*", "refs/tags/*", "refs/pull/*/head", "refs/merge-requests/*/head")


def ls_remote(remote: Remote, *, pulls: bool = False, timeout: float = 60.0) -> dict[str, str]:
    """Ask a remote for its branches and tags: full ref name → commit (an annotated tag counts as its commit).

    `pulls` also asks for the heads of pull requests, those that are closed included.
    Names that are not legal UTF-8 ref names are left out. Raises BadRemote, CommandFailed, CommandTimeout.
    """
    patterns = _PULLS if pulls else ()
    done = processes.run(
        ["git", "ls-remote", "--quiet", *([] if pulls else _NO_PULLS), "--end-of-options", remote.url, *patterns],
        env=remote.environment(),
        timeout=timeout,
        limit=64 * processes.MIB,
    )
    return legible_refs(line.partition(b"\t")[::2] for line in done.stdout.splitlines())


def legible_refs(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Turn git's (commit, name) pairs into name → commit; `name^{}` is the commit of the annotated tag before it."""
    refs: dict[str, str] = {}
    for sha, name in pairs:
        try:
            ref = check_ref(name.removesuffix(b"^{}").decode())
        except (UnicodeDecodeError, errors.UsageError):
            continue
        refs[ref] = check_sha(sha.decode())
    return refs


def check_version() -> str:
    """Return git's version; raises ProgramMissing when git is absent or too old."""
    text = processes.run(["git", "--version"], timeout=10).text
    match = re.search(r"(\d+)\.(\d+)[\w.]*", text)
    if match is None or (int(match[1]), int(match[2])) < MINIMUM_VERSION:
        wanted = ".".join(map(str, MINIMUM_VERSION))
        raise errors.ProgramMissing(f"git {wanted} or newer is needed, this machine has {text.strip()!r}")
    return match[0]


def _protocol(url: str | None) -> str:
    if url is None:
        return "none"
    if url.startswith(("/", "file://")):
        return "file"
    return "https" if url.startswith("https://") else "http" if url.startswith("http://") else "ssh"


def _authorization(token: str) -> str:
    login = token if ":" in token else f"x-access-token:{token}"
    return f"Authorization: Basic {base64.b64encode(login.encode()).decode()}"


def _one_line(header: str) -> str:
    if not header.isprintable():
        raise errors.UsageError("a header must be one printable line", code="bad-header")
    return header


def _ssh_command(known_hosts: Path, key: Path) -> str:
    hosts = f"UserKnownHostsFile={check_file_argument(known_hosts, 'the known_hosts file')}"
    argv = ["ssh", "-F", "/dev/null", "-i", check_file_argument(key, "the ssh key file")]
    for option in (*_SSH_OPTIONS, hosts):
        argv += ["-o", option]
    return shlex.join(argv)
