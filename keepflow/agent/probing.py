"""Asking the own front door all through a switch, as a visitor would: a receipt's evidence and the eyes of a watch."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from keepflow.errors import DeployFailed
from keepflow.ports import Proxy, Site

_QUICK = 0.02  #: seconds between two probes around a switch
_SLOW = 0.25  #: and while nothing is about to change
_UNAVAILABLE = 503
_KEPT = 100  #: newest probes that can be looked at
_MOST_TIMES = 20_000  #: times that are kept for the quantiles; a canary may be held for a day


@dataclass(frozen=True, slots=True)
class Sample:
    """One probe: when it was sent (monotonic), how long it took, and who answered what."""

    sent: float
    seconds: float
    status: int | None  #: None: nobody answered
    address: str | None
    expected_pause: bool  #: sent or answered while visitors were meant to see the maintenance page

    @property
    def paused(self) -> bool:
        """It met the maintenance page when that was meant."""
        return self.expected_pause and self.status == _UNAVAILABLE

    @property
    def failed(self) -> bool:
        """A visitor would have been sent away."""
        return not self.paused and (self.status is None or self.status >= 500)


class Prober:
    """A thread that probes until it is stopped. Set `pause` while visitors are meant to see the maintenance page."""

    def __init__(self, proxy: Proxy, site: Site, path: str, timeout: float, *, pause: bool) -> None:
        self.pause = pause
        self.slot: str | None = None  #: the slot to ask for, when it is not whoever the flags name
        self._proxy = proxy
        self._site = site
        self._path = path
        self._timeout = timeout
        self._every = _QUICK
        self._newest: deque[Sample] = deque(maxlen=_KEPT)
        self._sent = self._failed = self._paused = 0
        self._times: list[float] = []  #: milliseconds of the probes that did not fail
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"probe {site.service}/{site.instance}", daemon=True)
        self._thread.start()

    def quickly(self) -> None:
        """Probe about every 20 ms: something is about to change."""
        self._every = _QUICK

    def slowly(self) -> None:
        """Probe a few times a second."""
        self._every = _SLOW

    def since(self, moment: float) -> list[Sample]:
        """Return the newest probes, as far as they were sent at or after a monotonic moment, oldest first."""
        return [sample for sample in list(self._newest) if sample.sent >= moment]

    def stop(self) -> dict[str, Any]:
        """End, and return the counts for the receipt; times in milliseconds. May be called again."""
        self._over.set()
        self._thread.join()
        times = sorted(self._times)
        return {
            "sent": self._sent,
            "failed": self._failed,
            "maintenance": self._paused,
            "p50_ms": _quantile(times, 0.50),
            "p99_ms": _quantile(times, 0.99),
        }

    def _run(self) -> None:
        while not self._over.is_set():
            self._count(self._probe())
            self._over.wait(self._every)

    def _count(self, sample: Sample) -> None:
        self._newest.append(sample)
        self._sent += 1
        self._failed += sample.failed
        self._paused += sample.paused
        if not sample.failed:
            self._times.append(sample.seconds * 1000)
            if len(self._times) > _MOST_TIMES:
                self._times = self._times[::2]

    def _probe(self) -> Sample:
        expected_before = self.pause
        sent = time.monotonic()
        status = address = None
        try:
            answer = self._proxy.probe(self._site, self._path, self._timeout, self.slot)
            status, address = answer.status, answer.address
        except DeployFailed:
            pass  # nobody answered: the sample says so
        return Sample(sent, time.monotonic() - sent, status, address, expected_before or self.pause)


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else None
