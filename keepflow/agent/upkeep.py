"""What an instance needs between deployments: a front that stands, and its hot container stopped in time."""

from __future__ import annotations

import time
from dataclasses import replace

from keepflow.agent.instances import Instance
from keepflow.agent.places import Places
from keepflow.agent.pulse import LOOK, SLOW_ENGINE, Pulse
from keepflow.core import names
from keepflow.errors import DeployFailed, Refused
from keepflow.ports import Proxy, Target, Traffic

_FRONT_SECONDS = 5.0  #: after which a front that says nothing counts as dead


def stand_up(places: Places, proxy: Proxy, instance: Instance) -> list[str]:
    """Have one front stand; flags that vanished name what served last again, which is worth a word."""
    try:
        instance.claim()
    except Refused:
        _revive(places, proxy, instance)
        return []
    try:
        if not instance.known:
            return []  # removed since somebody listed it
        site = places.site(instance)
        proxy.ensure(site)
        history = instance.history()
        if proxy.state(site) is not None or not history.slot:
            return []
        proxy.switch(site, Traffic(history.slot))
        return [f"{instance.service}/{instance.instance}: the flags were gone; {history.slot} serves again"]
    finally:
        instance.release()


def _revive(places: Places, proxy: Proxy, instance: Instance) -> None:
    """Start a front that has died under a deployment, which may take long and relies on a front that stands."""
    site = places.site(instance)
    if proxy.state(site) is None:
        return  # its first deployment is just making it
    try:
        proxy.probe(site, "/", _FRONT_SECONDS)
    except DeployFailed:
        proxy.ensure(site)


def stop_retired(places: Places, target: Target, proxy: Proxy, pulse: Pulse, instance: Instance) -> None:
    """Stop the hot container of an instance whose time is over, unless it serves or a deployment is under way."""
    history = instance.history()
    if history.retired is None or history.retired_until > time.time_ns() // 1000:
        return
    try:
        instance.claim()
    except Refused:
        return
    try:
        state = proxy.state(places.site(instance))
        facts = target.inspect(history.retired)
        if facts is not None and state is not None and facts.labels.get(names.LABEL_SLOT) != state.slot:
            pulse.beat(LOOK, SLOW_ENGINE + history.retired_grace)
            target.stop(facts.id, history.retired_grace)
        instance.save_history(replace(instance.history(), retired=None))
    finally:
        instance.release()
