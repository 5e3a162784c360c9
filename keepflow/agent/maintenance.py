"""The maintenance page put up by a person on the host: visitors see it, who has the bypass cookie looks behind it."""

from __future__ import annotations

from dataclasses import replace

from keepflow.errors import Refused
from keepflow.ports import Proxy, Site

_USUAL = {"http": "80", "https": "443"}


def put(proxy: Proxy, site: Site, *, up: bool) -> bool:
    """Put the page up or take it down, and say whether that changed anything; hold the instance for this.

    Raises Refused `nothing-behind` when nothing was ever deployed, so that the page is all there is.
    """
    proxy.ensure(site)
    state = proxy.state(site)
    if state is None or state.slot is None:
        raise Refused("nothing was deployed here yet; visitors see the page until something is", code="nothing-behind")
    if state.maintenance == up:
        return False
    proxy.switch(site, replace(state, maintenance=up))
    return True


def bypass_link(site: Site) -> str:
    """Return the address that gives a browser the cookie; whoever knows it looks behind the page."""
    scheme = "https" if site.certificate else "http"
    port = site.listen.rpartition(":")[2]
    return f"{scheme}://{site.server_name}{'' if port == _USUAL[scheme] else f':{port}'}{site.bypass_path}"
