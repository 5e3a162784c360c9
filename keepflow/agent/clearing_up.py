"""What an agent that starts removes of the jobs that an earlier process began and nobody takes up."""

from __future__ import annotations

from pathlib import Path

from keepflow import errors
from keepflow.agent import leftovers
from keepflow.agent.attempts import Attempt, Attempts
from keepflow.agent.job_host import Host
from keepflow.agent.job_secrets import take_back
from keepflow.agent.logs import Log

log = Log(__name__)


def clear_up(attempts: Attempts, directory: Path, host: Host) -> None:
    """Remove and close what is left of all attempts but those that go on; `directory` is where attempts lie."""
    going_on = [attempt for attempt in attempts if attempt.ended is None and attempt.progress.start is not None]
    _remove_boxes(host, going_on)
    _take_back(directory, host, going_on)
    lanes = {Path(one.progress.start.workspace).parent: one.order for one in going_on if one.progress.start}
    host.workplace.clear(lanes)


def _remove_boxes(host: Host, going_on: list[Attempt]) -> None:
    """Remove what is left on the engine; without an engine there is nothing."""
    if "run" not in host.file.capabilities or not host.account.engine_socket.exists():
        return
    try:
        if found := leftovers.sweep(host.engine, host.key_id, [attempt.mark for attempt in going_on]):
            log.warning("containers of jobs that were broken off are removed", found=found)
    except errors.KeepflowError as error:
        log.warning("containers of jobs that were broken off may be left", reason=error.message)


def _take_back(directory: Path, host: Host, going_on: list[Attempt]) -> None:
    """Remove the secret files of steps; their lanes are closed, but only the next job there would clean them."""
    spared = {str(attempt.fence) for attempt in going_on}
    for place in directory.iterdir():
        if place.name not in spared and (gone := take_back(place, host.account.account)):
            log.warning("files of secrets that a job had are removed", attempt=place.name, files=len(gone))
