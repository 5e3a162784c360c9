"""Looking at an nginx before anything depends on it: nothing that serves is touched, and nothing is left behind."""

from __future__ import annotations

import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from keepflow.errors import DeployFailed
from keepflow.ports import Site, Traffic
from keepflow.proxies._flags import Flags
from keepflow.proxies._host import HostNginx
from keepflow.proxies._own import OwnNginx
from keepflow.proxies._reload import becomes_true
from keepflow.proxies.nginx import Nginx
from keepflow.tools import processes
from keepflow.tools.http_get import NoAnswer, get, split_listen

#: The first nginx whose upstreams know `keepalive_timeout`, which the sites need.
OLDEST = (1, 15, 3)
_VERSION = re.compile(rb"nginx/([0-9]+)\.([0-9]+)\.([0-9]+)")
_BUILT_USER = re.compile(rb"--user=(\S+)")
_USER = re.compile(r"^\s*user\s+([^\s;]+)", re.MULTILINE)
_FOUND = "# configuration file {}:"
_NAME = "kf-doctor"
_ASK_SECONDS = 2.0


def version(program: str) -> tuple[int, ...]:
    """Return the version of an nginx; raises ProgramMissing, and DeployFailed `proxy-version` when it does not say."""
    said = processes.run([program, "-v"], timeout=30).stderr
    match = _VERSION.search(said)
    if match is None:
        raise DeployFailed(f"{program} -v does not answer like nginx", code="proxy-version")
    return tuple(int(part) for part in match.groups())


def obeys_flags(place: Path, program: str) -> None:
    """Start an nginx of our own in an empty directory, see it obey both slots' flags, and end it.

    `place` must be as open to nginx's workers as the real one will be. Raises DeployFailed `proxy-…`.
    """
    home = place / "nginx"
    proxy, site = Nginx.own(place / "sw", home, program), _site()
    try:
        proxy.ensure(site)
        for slot in ("blue", "green"):
            proxy.switch(site, Traffic(slot))
            if not becomes_true(lambda: proxy.sees_flags(site)):
                raise DeployFailed(f"nginx does not see the flag {slot!r}", code="proxy-blind")
    finally:
        OwnNginx(home, program).stop()


def own_master(home: Path, program: str) -> int | None:
    """Return the process of the running nginx of our own, or None."""
    return OwnNginx(home, program).pid()


@dataclass(frozen=True, slots=True)
class HostReading:
    """What a host's nginx would do by its files: read a site in the include folder, and run workers as `user`."""

    included: bool
    user: str


def read_host(include_dir: Path, program: str) -> HostReading:
    """Test a copy of the host's whole tree with a file of ours in it; raises DeployFailed with nginx's words."""
    tree = HostNginx(include_dir, program, ())
    text = tree.dump(_NAME, "# a file that keepflow agent doctor looks for\n")
    named = _USER.search(text)
    return HostReading(_FOUND.format(tree.place(_NAME)) in text, named[1] if named else _built_user(program))


def sees_flags(place: Path, account: processes.Account) -> bool:
    """Say whether an account sees a flag come and go in an empty directory, as nginx's workers must."""
    flags = Flags(place / "sw", _NAME)
    for slot, other in (("blue", "green"), ("green", "blue")):
        flags.put((slot,))
        if not _sees(flags.current / slot, account) or _sees(flags.current / other, account):
            return False
    return True


def out_of_force(sites: Path, pattern: str) -> list[Path]:
    """Return the site files of ours that the running nginx does not answer with."""
    return [path for path in sorted(sites.glob(pattern)) if not _in_force(path.read_text(encoding="utf-8"))]


def _in_force(text: str) -> bool:
    """Ask the front door of a site for its generation, with the words of the site's own file."""
    words = {
        "generation": r"· generation (\S+)$",
        "token": r'_probe \{ default 0; "(\S+)" 1; \}$',
        "listen": r"^    listen (\S+?)(?: ssl)?;$",
        "name": r"^    server_name (\S+);$",
    }
    found = {key: match[1] for key, pattern in words.items() if (match := re.search(pattern, text, re.MULTILINE))}
    if found.keys() != words.keys():
        return False
    host, port = split_listen(found["listen"])
    tls_name = found["name"] if " ssl;" in text else None
    headers = {"Host": found["name"], "User-Agent": "keepflow-probe", "X-Keepflow-Probe": found["token"]}
    try:
        said = get(host, port, "/__keepflow/state", headers, timeout=_ASK_SECONDS, tls_name=tls_name)
    except NoAnswer:
        return False
    return f"generation={found['generation']} ".encode() in said.body


def _sees(path: Path, account: processes.Account) -> bool:
    return processes.run(["test", "-f", str(path)], timeout=10, check=False, account=account).exit_code == 0


def _built_user(program: str) -> str:
    match = _BUILT_USER.search(processes.run([program, "-V"], timeout=30).stderr)
    return match[1].decode() if match else "nobody"


def _site() -> Site:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    return Site(
        service="doctor",
        instance="main",
        server_name="doctor.keepflow.invalid",
        listen=f"127.0.0.1:{port}",
        blue="127.0.0.1:1",
        green="127.0.0.1:2",
        probe_token=secrets.token_hex(16),
        bypass_token=secrets.token_hex(16),
    )
