"""`keepflow apply`: say what a server file would change in the database, then change it, in one transaction.

What the file names becomes read-only on pages ("managed by file"); what an earlier file named and this one does not is
taken away; everything else belongs to the pages and is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from keepflow.core import freeze, rules
from keepflow.core.deploys import overrides_to_json
from keepflow.core.retention import Rule
from keepflow.crypto.vault import Vault
from keepflow.engine import channels, hooking, retention, statuses
from keepflow.engine.context import Master
from keepflow.errors import UsageError
from keepflow.store import environments, events, people, placements, projects, settings
from keepflow.store.environments import Environment
from keepflow.store.projects import Project, git_token_place, hook_secret_place
from keepflow.store.writer import Tx
from keepflow.tools.git import check_remote_url
from keepflow.wire.desired import (
    Desired,
    DesiredEnvironment,
    DesiredProject,
    DesiredRegistry,
    DesiredRetention,
    PlanLine,
)

#: Settings whose values are never shown, only that they are new.
_HIDDEN = frozenset({"hook_secret", "git_token", "status", "hook", "push", "pull", "ca_pem", "secrets"})
REGISTRIES = "registries"  #: settings key; {name: DesiredRegistry with sealed passwords}
URL = "url"  #: settings key


def registry_place(name: str, user: str) -> str:
    """Return the place a registry password is sealed for; `user` is push or pull."""
    return f"registry/{name}/{user}"


def registries(conn: Connection, vault: Vault) -> dict[str, DesiredRegistry]:
    """Return the registries of this master by name, with their logins unsealed."""
    stored: dict[str, Any] = settings.get(conn, REGISTRIES, {})
    return {name: DesiredRegistry(**_unsealed(vault, name, data)) for name, data in stored.items()}


def plan(conn: Connection, master: Master, desired: Desired) -> list[PlanLine]:
    """List what applying would do, in order; an empty list says that the database already is equal to the file.

    Raises UsageError or BadRemote for what no master can do.
    """
    _check(master, desired)
    current = stored(conn, master)
    keep_url = {"url": current.url} if desired.url is None else {"url": desired.url}
    lines = list(_compare("server", {"": {"url": current.url}}, {"": keep_url}))
    kept = {"": current.retention.model_dump()}, {"": desired.retention.model_dump()}
    lines += _compare("retention", *kept)
    for kind in ("registries", "groups", "projects", "environments", "notify"):
        lines += _compare(kind, _section(current, kind), _section(desired, kind))
    return lines


def apply(tx: Tx, master: Master, desired: Desired, by: str, now: int) -> list[PlanLine]:
    """Make the database equal to the file and return what was done."""
    done = plan(tx.conn, master, desired)
    if desired.url is not None:
        settings.put(tx.conn, URL, desired.url)
    retention.put_rule(tx.conn, Rule(**desired.retention.model_dump()))
    sealed = {name: _sealed(master, name, registry) for name, registry in desired.registries.items()}
    settings.put(tx.conn, REGISTRIES, sealed)
    channels.put(tx.conn, master, desired.notify)
    _apply_groups(tx.conn, desired)
    _apply_projects(tx, master, desired, now)
    _apply_environments(tx.conn, desired, now)
    if done:
        events.add(tx, now, "applied", actor=by, data={"changes": [line.model_dump() for line in done]})
    for topic in ("projects", "dispatch", "deliveries", "events"):
        tx.after_commit(partial(master.wakes.fire, topic))
    return done


def stored(conn: Connection, master: Master) -> Desired:
    """Return what earlier files made of the database, in the words of a file."""
    managed = {project.name: project for project in projects.every(conn) if project.managed}
    return Desired(
        url=settings.get(conn, URL),
        retention=DesiredRetention(**asdict(retention.rule(conn))),
        registries=registries(conn, master.vault),
        groups={group.name: tuple(sorted(group.members)) for group in people.all_groups(conn) if group.managed},
        projects={name: _stored_project(conn, master, project) for name, project in managed.items()},
        environments={
            f"{project.name}/{environment.name}": _stored_environment(environment)
            for project in managed.values()
            for environment in environments.of_project(conn, project.id)
            if environment.managed
        },
        notify=channels.stored(conn, master.vault),
    )


def _check(master: Master, desired: Desired) -> None:
    for name, project in desired.projects.items():
        check_remote_url(project.repo, allow_local=True)
        if project.forge not in master.forges:
            known = ", ".join(sorted(master.forges))
            sentence = f"projects.{name}.forge: no forge {project.forge!r}; there are: {known}"
            raise UsageError(sentence, code="unknown-forge")
        hooking.check(master, name, project)
    for key in desired.environments:
        if key.partition("/")[0] not in desired.projects:
            raise UsageError(f"environments.{key}: the file names no such project", code="unknown-project")
        _check_rules(key, desired.environments[key])
    for name, channel in desired.notify.items():
        channels.opened(name, channel, master.notifiers)


def _check_rules(key: str, environment: DesiredEnvironment) -> None:
    try:
        windows = rules.from_json(environment.rules).freeze
        wrong = next((sentence for window in windows if (sentence := freeze.problem(window.start, window.end))), None)
        for window in windows:
            ZoneInfo(window.tz)
    except (KeyError, TypeError, ValueError, OSError) as error:
        wrong = f"{type(error).__name__}: {error}"
    if wrong is not None:
        raise UsageError(f"environments.{key}: rules this master cannot keep: {wrong}", code="bad-rules")


def _section(desired: Desired, kind: str) -> dict[str, dict[str, Any]]:
    if kind == "groups":
        return {name: {"members": sorted(members)} for name, members in desired.groups.items()}
    found: Mapping[str, Any] = getattr(desired, kind)
    return {name: model.model_dump(mode="json") for name, model in found.items()}


def _compare(kind: str, old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> Iterator[PlanLine]:
    noun = {"registries": "registry", "notify": "channel"}.get(kind, kind.removesuffix("s"))
    for name, wanted in new.items():
        what = f"{noun} {name}".strip()
        if name not in old:
            yield PlanLine(action="add", what=what)
        elif old[name] != wanted:
            keys = [key for key in wanted if wanted[key] != old[name].get(key)]
            yield PlanLine(
                action="change",
                what=what,
                detail="; ".join(_difference(key, old[name].get(key), wanted[key]) for key in keys),
            )
    for name in old.keys() - new.keys():
        stays = "" if kind == "notify" else "runs, releases and deployments stay"
        yield PlanLine(action="remove", what=f"{noun} {name}", detail=stays)


def _difference(key: str, old: Any, new: Any) -> str:
    return f"{key} is new" if key in _HIDDEN else f"{key}: {_said(old)} → {_said(new)}"


def _said(value: Any) -> str:
    return "nothing" if value is None else repr(value)


def _sealed(master: Master, name: str, registry: DesiredRegistry) -> dict[str, Any]:
    data = registry.model_dump(mode="json")
    for user in ("push", "pull"):
        if data[user] is not None:
            sealed = master.vault.seal(data[user]["password"].encode(), registry_place(name, user))
            data[user]["password"] = sealed.hex()
    return data


def _unsealed(vault: Vault, name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    opened = dict(data)
    for user in ("push", "pull"):
        if data[user] is not None:
            sealed = bytes.fromhex(data[user]["password"])
            password = vault.unseal(sealed, registry_place(name, user)).decode()
            opened[user] = {"username": data[user]["username"], "password": password}
    return opened


def _apply_groups(conn: Connection, desired: Desired) -> None:
    for group in people.all_groups(conn):
        if group.managed and group.name not in desired.groups:
            people.remove_group(conn, group.name)
    for name, members in desired.groups.items():
        people.set_group(conn, name, members, managed=True)


def _apply_projects(tx: Tx, master: Master, desired: Desired, now: int) -> None:
    conn = tx.conn
    for project in projects.every(conn):
        if project.managed and project.name not in desired.projects:
            hooking.want(tx, master, project, None, now)
            projects.remove(conn, project.id, now)
    for name, wanted in desired.projects.items():
        found = projects.by_name(conn, name)
        project_id = found.id if found else projects.add(conn, now, name, wanted.repo, wanted.forge)
        before = projects.by_id(conn, project_id)
        projects.change(conn, project_id, managed=True, **_project_columns(conn, master, before, wanted))
        hooking.want(tx, master, projects.by_id(conn, project_id), wanted.hook, now)


def _project_columns(conn: Connection, master: Master, project: Project, wanted: DesiredProject) -> dict[str, Any]:
    name, token = project.name, wanted.git_token
    return {
        **_hook_secret(master, project, wanted),
        "repo": wanted.repo,
        "forge": wanted.forge,
        "flow_file": wanted.flow_file,
        "images": list(wanted.images),
        "submodules": list(wanted.submodules),
        "git_token": master.vault.seal(token.encode(), git_token_place(name)) if token else None,
        "status": statuses.sealed(conn, master.vault, name, wanted.status),
        "git_ssh_key_file": wanted.git_ssh_key_file,
        "git_known_hosts_file": wanted.git_known_hosts_file,
    }


def _hook_secret(master: Master, project: Project, wanted: DesiredProject) -> dict[str, Any]:
    """Return the secret of a project's hook: the file's, else one that is made once and kept, when it is kept here."""
    if wanted.hook_secret is None and wanted.hook and project.hook_secret_made and project.hook_secret:
        return {}
    secret = wanted.hook_secret or (hooking.made_secret() if wanted.hook else None)
    sealed = master.vault.seal(secret.encode(), hook_secret_place(project.name)) if secret else None
    return {"hook_secret": sealed, "hook_secret_made": bool(secret) and wanted.hook_secret is None}


def _stored_project(conn: Connection, master: Master, project: Project) -> DesiredProject:
    token = project.git_token
    hook = None if project.hook_secret_made else project.hook_secret
    return DesiredProject(
        repo=project.repo,
        forge=project.forge,
        flow_file=project.flow_file,
        images=project.images,
        submodules=project.submodules,
        hook_secret=master.vault.unseal(hook, hook_secret_place(project.name)).decode() if hook else None,
        git_token=master.vault.unseal(token, git_token_place(project.name)).decode() if token else None,
        status=statuses.opened(master.vault, project),
        hook=hooking.wanted(conn, master.vault, project),
        git_ssh_key_file=project.git_ssh_key_file,
        git_known_hosts_file=project.git_known_hosts_file,
    )


def _apply_environments(conn: Connection, desired: Desired, now: int) -> None:
    by_name = {project.name: project for project in projects.every(conn)}
    for project in by_name.values():
        for environment in environments.of_project(conn, project.id):
            if environment.managed and f"{project.name}/{environment.name}" not in desired.environments:
                environments.remove(conn, environment.id, now)
    for position, (key, wanted) in enumerate(desired.environments.items()):
        name, _, short = key.partition("/")
        columns = {**wanted.model_dump(mode="json", exclude={"agents"}), "position": position, "managed": True}
        environment_id = environments.put(conn, by_name[name].id, short, now, columns)
        placements.put(conn, environment_id, wanted.agents, now)


def _stored_environment(environment: Environment) -> DesiredEnvironment:
    return DesiredEnvironment(
        agents=environment.agents,
        max_unavailable=environment.max_unavailable,
        on_failure=environment.on_failure,
        service=environment.service,
        branches=environment.branches,
        idle=environment.idle,
        overrides=overrides_to_json(environment.overrides),
        promote_from=environment.promote_from,
        verified_by=environment.verified_by,
        approved_by=environment.approved_by,
        rules=rules.to_json(environment.rules),
    )
