"""The webhooks that keepflow keeps at forges."""

from __future__ import annotations

from keepflow.engine import hooking
from keepflow.errors import NotFound
from keepflow.store import forge_hooks
from keepflow.store.forge_hooks import ForgeHook
from keepflow.web.answers import hooks as answers
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import caller, reading, web
from keepflow.wire import api

endpoints = Endpoints("Hooks at forges")


@endpoints.add("GET", "/hooks", "administer", api.ForgeHooks)
def list_hooks() -> api.ForgeHooks:
    """List the webhooks that are kept at forges, or have still to be removed there."""
    return api.ForgeHooks(items=answers.shown(web().master, forge_hooks.every(reading())))


@endpoints.add("POST", "/hooks/<int:number>/again", "administer", api.ForgeHook)
def mend_hook(number: int) -> api.ForgeHook:
    """Have the forge of a webhook asked at once; the answer is how things stood before."""
    return again(number)


def again(number: int) -> api.ForgeHook:
    """Have the forge of a webhook asked at once."""
    hook, master, now = _found(number), web().master, web().now()
    master.writer.call(lambda tx: hooking.again(tx, master, hook.project_id, now))
    return answers.shown(master, [hook])[0]


@endpoints.add("DELETE", "/hooks/<int:number>", "administer", api.ForgeHooks)
def forget_hook(number: int) -> api.ForgeHooks:
    """Let go of a webhook that a person has removed at its forge; the answer lists what is left."""
    hook, master, by, now = _found(number), web().master, caller().user.name, web().now()
    master.writer.call(lambda tx: hooking.forget(tx, hook, by, now))
    with master.database.read() as conn:
        return api.ForgeHooks(items=answers.shown(master, forge_hooks.every(conn)))


def _found(number: int) -> ForgeHook:
    for hook in forge_hooks.every(reading()):
        if hook.id == number:
            return hook
    raise NotFound("there is no such webhook", code="no-hook")
