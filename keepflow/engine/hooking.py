"""Webhooks are kept at forges: made, found again, mended, and removed with their project.

What is wanted is written by the transaction that applies a server file; a thread of its own asks the forges, again and
again until they did it. So a forge that is away keeps nobody from applying, and no hook is forgotten half removed.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

import structlog
from sqlalchemy import Connection

from keepflow import errors
from keepflow.core.loopback import is_loopback
from keepflow.core.text import one_line
from keepflow.core.webhooks import mending
from keepflow.crypto.vault import Vault
from keepflow.engine import clock
from keepflow.engine.context import Master
from keepflow.engine.forge_api import Caller, HookApi, HookRefused
from keepflow.engine.woken import LONGEST_WAIT, Woken
from keepflow.store import events, forge_hooks, projects
from keepflow.store.forge_hooks import DUE, FAILED, KEPT, LEFT, ForgeHook
from keepflow.store.projects import Project, hook_given_place, hook_secret_place, hook_token_place
from keepflow.store.writer import Tx
from keepflow.wire.desired import DesiredApi, DesiredProject

log = structlog.get_logger(__name__)

_SECOND = 1_000_000
_WAITS = (15, 60, 300, 900, 3600)  #: seconds before each further try, the last one again and again
_LOOK_AGAIN = 24 * 3600  #: seconds until a hook that is as it should be is looked at again
_KEYS = ("forge", "repo", "api")  #: what says which repository of which forge a hook belongs to


def made_secret() -> str:
    """Return a secret for the webhook of a project whose file names none."""
    return secrets.token_urlsafe(32)


def check(master: Master, name: str, project: DesiredProject) -> None:
    """Raise UsageError for a `hook:` that no API can keep."""
    if project.hook and master.forges[project.forge].hook_place(project.repo, project.hook.api, "") is None:
        sentence = (
            f"projects.{name}.hook: nobody can be asked for a hook of {one_line(project.repo, 200)!r} "
            f"({project.forge}); `keepflow hook show` prints one for a bare repository"
        )
        raise errors.UsageError(sentence, code="no-hook-api")


# --- what is wanted: inside the transaction of an apply --------------------------------------------------------------


def want(tx: Tx, master: Master, project: Project, hook: DesiredApi | None, now: int) -> None:
    """Have the forge of a project asked to have its hook, or with None to have none; what it had elsewhere goes."""
    stays = None
    for found in forge_hooks.of_project(tx.conn, project.id):
        here = hook and (found.forge, found.repo, found.api) == (project.forge, project.repo, hook.api)
        if here and stays is None:
            stays = found
        elif found.wanted:
            forge_hooks.change(tx.conn, found.id, now, wanted=False, state=DUE, said="", tries=0, next_at=now)
    if hook is None:
        return
    columns = {"ca_pem": hook.ca_pem, "private": hook.private, "wanted": True}
    token = master.vault.seal(hook.token.encode(), hook_token_place(project.name))
    if stays is None:
        keys = {"forge": project.forge, "repo": project.repo, "api": hook.api}
        forge_hooks.add(tx.conn, project.id, now, token=token, **keys, **columns)
    elif not stays.wanted or opened(master.vault, stays) != hook:
        asked = {"state": DUE, "said": "", "tries": 0, "next_at": now}
        forge_hooks.change(tx.conn, stays.id, now, token=token, **columns, **asked)


def wanted(conn: Connection, vault: Vault, project: Project) -> DesiredApi | None:
    """Return how the forge of a project is asked for its hook, None when it is not."""
    found = [hook for hook in forge_hooks.of_project(conn, project.id) if hook.wanted]
    return opened(vault, found[0]) if found else None


def opened(vault: Vault, hook: ForgeHook) -> DesiredApi:
    """Return how the forge of a hook is asked, with the token in the clear."""
    token = vault.unseal(hook.token, hook_token_place(hook.project)).decode()
    return DesiredApi(token=token, api=hook.api, ca_pem=hook.ca_pem, private=hook.private)


def again(tx: Tx, master: Master, project_id: int, now: int) -> None:
    """Have the forge of a project asked at once, whatever it said before."""
    for hook in forge_hooks.of_project(tx.conn, project_id):
        forge_hooks.change(tx.conn, hook.id, now, state=DUE, tries=0, next_at=now, given=None)
    tx.after_commit(partial(master.wakes.fire, "hooks"))


def suspect(tx: Tx, master: Master, project_id: int, now: int) -> None:
    """Have a hook that is said to be kept looked at now: one of its deliveries did not come."""
    for hook in forge_hooks.of_project(tx.conn, project_id):
        if hook.state == KEPT:
            forge_hooks.change(tx.conn, hook.id, now, next_at=now)
            tx.after_commit(partial(master.wakes.fire, "hooks"))


def forget(tx: Tx, hook: ForgeHook, by: str, now: int) -> None:
    """Let go of a hook that a person has removed at the forge. Raises Refused for one that is wanted."""
    if hook.wanted:
        raise errors.Refused(f"{hook.project} wants its hook: take `hook:` out of keepflow.yml first", code="wanted")
    forge_hooks.drop(tx.conn, hook.id)
    events.add(tx, now, "hook-forgotten", project_id=hook.project_id, actor=by, data={"repo": hook.repo})


# --- what is done: in the keeper's thread ----------------------------------------------------------------------------


def tend(master: Master, now: int) -> int | None:
    """Ask the forges whose hooks are due, and return when the next one is, None when there is none.

    One that does not answer is asked again later, and keeps nobody else waiting.
    """
    with master.database.read() as conn:
        every = forge_hooks.every(conn)
        known = {hook.project_id: projects.by_id(conn, hook.project_id) for hook in every}
    away = set[tuple[str, str]]()
    for hook in every:
        project = known[hook.project_id]
        if not _is_due(master, hook, project, now) or (hook.forge, _host(hook)) in away:
            continue
        try:
            _keep(master, hook, project) if hook.wanted else _remove(master, hook)
        except errors.Refused:  # somebody asked for something else meanwhile: the next turn does that
            continue
        except errors.KeepflowError as error:
            _refused(master, hook, error.message)
            if not isinstance(error, HookRefused):
                away.add((hook.forge, _host(hook)))
    with master.database.read() as conn:
        return min((hook.next_at for hook in forge_hooks.every(conn) if hook.next_at is not None), default=None)


def _host(hook: ForgeHook) -> str:
    return urlsplit(hook.api or hook.repo).netloc or hook.repo.partition(":")[0]


def _is_due(master: Master, hook: ForgeHook, project: Project, now: int) -> bool:
    if hook.next_at is not None and hook.next_at <= now:
        return True
    return hook.wanted and hook.state == KEPT and not _has(master, hook, *_meant(master, project))


def _meant(master: Master, project: Project) -> tuple[str, str]:
    """Return the address and the secret that the hook of a project should have."""
    sealed = project.hook_secret
    secret = master.vault.unseal(sealed, hook_secret_place(project.name)).decode() if sealed else ""
    return _address(master, project.name), secret


def _address(master: Master, project: str) -> str:
    return f"{master.url()}/hooks/{project}"


def _has(master: Master, hook: ForgeHook, address: str, secret: str) -> bool:
    """Say whether a hook was given this address and secret; a digest of them would tell who guesses a weak secret."""
    if hook.given is None:
        return False
    known = master.vault.unseal(hook.given, hook_given_place(hook.project))
    return hmac.compare_digest(known, f"{address}\n{secret}".encode())


def _api(master: Master, hook: ForgeHook, secret: str = "") -> HookApi:
    how = opened(master.vault, hook)
    place = master.forges[hook.forge].hook_place(hook.repo, how.api, how.token)
    if place is None:
        raise HookRefused(f"the forge {hook.forge!r} has no API that keeps hooks")
    caller = Caller(place.headers, place.rights, (how.token, secret), private=how.private, ca_pem=how.ca_pem)
    return HookApi(place, caller)


def _keep(master: Master, hook: ForgeHook, project: Project) -> None:
    address, secret = _meant(master, project)
    if not secret:
        raise HookRefused("the project has no hook secret; apply its file again")
    if is_loopback(urlsplit(address).hostname or "") and not hook.private:
        raise HookRefused(f"no forge can call {address}: set `url:` in keepflow.yml, and open it to the forge")
    api, known = _api(master, hook, secret), _has(master, hook, address, secret)
    try:
        todo, stays = mending(api.all(), address, hook.remote_id, known, api.place.keeps_secret)
        if todo.change:
            api.change(todo.change, address, secret)
        if todo.make:
            stays = api.make(address, secret)
    except errors.UsageError as error:  # not what the forge documents, or a secret that is none for it
        raise HookRefused(error.message) from None
    given = hook.given if known else master.vault.seal(f"{address}\n{secret}".encode(), hook_given_place(hook.project))
    hook = _settled(master, hook, remote_id=stays, given=given)  # before the others go: a failure makes no third one
    for other in todo.remove:
        api.remove(other)
    news = "hook-kept" if todo.make or todo.change or hook.state != KEPT else ""
    next_at = clock.now() + _LOOK_AGAIN * _SECOND
    _settled(master, hook, news, state=KEPT, said="", tries=0, next_at=next_at)


def _remove(master: Master, hook: ForgeHook) -> None:
    address = _address(master, hook.project)
    api = _api(master, hook)
    try:
        ours = [found.id for found in api.all() if found.url == address or found.id == hook.remote_id]
    except errors.UsageError as error:
        raise HookRefused(error.message) from None
    for one in ours:
        api.remove(one)

    def write(tx: Tx) -> None:
        if forge_hooks.settle(tx.conn, hook, clock.now()):
            forge_hooks.drop(tx.conn, hook.id)
            _told(tx, master, hook, "hook-removed", "", clock.now())

    master.writer.call(write)


def _refused(master: Master, hook: ForgeHook, why: str) -> None:
    """Write down why it could not be done, for a person to read, and when it is tried again."""
    said, tries = one_line(why, 600), hook.tries + 1
    log.warning("a hook at a forge is not as it should be", project=hook.project, reason=said, tries=tries)
    if not hook.wanted:
        said += f". It may be there still: {_page(master, hook)}; remove the one to {_address(master, hook.project)}"
    next_at = clock.now() + _WAITS[min(tries, len(_WAITS)) - 1] * _SECOND
    news = "hook-failed" if hook.said != said else ""
    _settled(master, hook, news, state=FAILED if hook.wanted else LEFT, said=said, tries=tries, next_at=next_at)


def _page(master: Master, hook: ForgeHook) -> str:
    place = master.forges[hook.forge].hook_place(hook.repo, hook.api, "")
    return place.page if place else hook.repo


def _settled(master: Master, hook: ForgeHook, news: str = "", **columns: object) -> ForgeHook:
    """Write down what a forge said, with an event called `news`; what was asked for meanwhile is not overwritten."""
    now = clock.now()

    def write(tx: Tx) -> None:
        if not forge_hooks.settle(tx.conn, hook, now, **columns):
            raise errors.Refused("the hook was changed meanwhile", code="changed")
        if news:
            _told(tx, master, hook, news, str(columns.get("said", "")), now)

    master.writer.call(write)
    return replace(hook, changed_at=now, **columns)  # type: ignore[arg-type]  # columns are fields


def _told(tx: Tx, master: Master, hook: ForgeHook, news: str, said: str, now: int) -> None:
    events.add(tx, now, news, project_id=hook.project_id, data={"repo": hook.repo, "said": said})
    tx.after_commit(partial(master.wakes.fire, "events"))


class HookKeeper:
    """Keeps hooks at forges in a thread of its own."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._woken = Woken("hooks", master.wakes, self._turn, dict.fromkeys(("hooks", "projects")))

    def start(self) -> None:
        """Begin where the last process stopped."""
        self._woken.start()

    def stop(self, timeout: float) -> None:
        """Begin nothing more; what is being asked ends with the process, and is asked again by the next one."""
        self._woken.stop(timeout)

    def _turn(self) -> float:
        following = tend(self._master, clock.now())
        return LONGEST_WAIT if following is None else (following - clock.now()) / 1e6
