"""The text of a site for nginx: every value passes a strict pattern before it comes near the template."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from keepflow.core import names
from keepflow.errors import DeployFailed
from keepflow.ports import Site
from keepflow.proxies._flags import CANARY_PERCENT
from keepflow.tools.shipped import shipped

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,40}")  # longer ones overflow a bucket of nginx's default map hash
_PATH = re.compile(r"(?:/[A-Za-z0-9._@+-]+)+")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LONGEST_VARIABLE = 30  # with the longest ending, what a bucket of nginx's default variables hash can hold


@dataclass(frozen=True, slots=True)
class Rendered:
    """A site's whole text, and the generation it answers with once nginx really uses it."""

    text: str
    generation: str


def render(site: Site, flags: Path, pages: Path, visits: Path, other_logs: Sequence[str] = ()) -> Rendered:
    """Write the site of an instance; raises DeployFailed `proxy-site` naming the first value that is not allowed.

    `other_logs` are access_log directives of whoever owns this nginx, which a site with one of its own must repeat.
    """
    values = {
        "service": _name("service", site.service),
        "instance": _name("instance", site.instance),
        "v": variable_prefix(site.service, site.instance),
        "listen": _listen(site.listen),
        "server_name": _matching("server_name", _HOST, site.server_name),
        "blue": _slot_address("blue", site.blue),
        "green": _slot_address("green", site.green),
        "probe_token": _matching("probe_token", _TOKEN, site.probe_token),
        "bypass_token": _matching("bypass_token", _TOKEN, site.bypass_token),
        "bypass_path": site.bypass_path,
        "certificate": _path("certificate", site.certificate) if site.certificate else "",
        "certificate_key": _path("certificate_key", site.certificate_key) if site.certificate else "",
        "flags": _path("flags", str(flags)),
        "pages": _path("pages", str(pages)),
        "visits": _path("visits", str(visits)),
        "other_logs": list(other_logs),
        "canary": CANARY_PERCENT,
        "only_by_name": site.only_by_name,
    }
    if site.blue == site.green:
        raise _refused("green", site.green)
    draft = _template("site.conf.j2").render(values, generation="")
    generation = hashlib.sha256(draft.encode()).hexdigest()[:16]
    return Rendered(_template("site.conf.j2").render(values, generation=generation), generation)


def render_own(home: Path, nginx_version: tuple[int, ...]) -> str:
    """Write the main file of an nginx of keepflow's own."""
    return _template("own.conf.j2").render(home=_path("home", str(home)), nginx_version=list(nginx_version))


def variable_prefix(service: str, instance: str) -> str:
    """Return the start of an instance's variable and upstream names: `kf_shop_main`, shortened by a hash when long."""
    readable = names.prefix(service, instance).replace("-", "_")
    if len(readable) <= _LONGEST_VARIABLE:
        return readable
    return f"{readable[:20]}_{hashlib.sha256(readable.encode()).hexdigest()[:9]}"


@cache
def _template(name: str) -> Template:
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  # not HTML: every value is checked against a pattern above
    )
    return environment.from_string(shipped("nginx", name).read_text(encoding="utf-8"))


def _matching(field: str, pattern: re.Pattern[str], text: str) -> str:
    if pattern.fullmatch(text) is None:
        raise _refused(field, text)
    return text


def _name(field: str, text: str) -> str:
    if not names.is_name(text):
        raise _refused(field, text)
    return text


def _path(field: str, text: str) -> str:
    if {".", ".."} & set(text.split("/")):
        raise _refused(field, text)
    return _matching(field, _PATH, text)


def _port(field: str, text: str, whole: str) -> str:
    if _PORT.fullmatch(text) is None or int(text) > 65535:
        raise _refused(field, whole)
    return text


def _listen(text: str) -> str:
    host, _, port = text.rpartition(":")
    _port("listen", port, text)
    if host:
        inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if (":" in inner) != host.startswith("["):
            raise _refused("listen", text)
        _address("listen", inner, text)
    elif ":" in text:
        raise _refused("listen", text)
    return text


def _slot_address(field: str, text: str) -> str:
    host, _, port = text.partition(":")
    _port(field, port, text)
    if ":" in host or _address(field, host, text).version != 4:
        raise _refused(field, text)
    return text


def _address(field: str, host: str, whole: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise _refused(field, whole) from None
    if "%" in host:
        raise _refused(field, whole)
    return address


def _refused(field: str, text: str) -> DeployFailed:
    return DeployFailed(f"{field}: {text[:80]!r} may not stand in an nginx file", code="proxy-site")
