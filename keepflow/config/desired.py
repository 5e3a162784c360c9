"""A server file with every file it names read: what `keepflow apply` sends to the master."""

from __future__ import annotations

from pathlib import Path

from keepflow.config.channels import Channel
from keepflow.config.server_file import Environment, ForgeApi, Project, Registry, RegistryUser, Retention, ServerFile
from keepflow.core import rules
from keepflow.core.deploys import overrides_to_json
from keepflow.errors import UsageError
from keepflow.wire.desired import (
    Desired,
    DesiredApi,
    DesiredChannel,
    DesiredEnvironment,
    DesiredLogin,
    DesiredProject,
    DesiredRegistry,
    DesiredRetention,
)


def desired(server: ServerFile) -> Desired:
    """Read every file a server file names; raises UsageError naming the setting and the file that cannot be read."""
    _only_what_is_kept(server)
    return Desired(
        url=server.url,
        retention=_retention(server.retention),
        registries={name: _registry(f"registries.{name}", found) for name, found in server.registries.items()},
        groups=dict(server.groups),
        projects={name: _project(f"projects.{name}", found) for name, found in server.projects.items()},
        environments={name: _environment(found) for name, found in server.environments.items()},
        notify={name: _channel(f"notify.{name}.{found.kind}", found) for name, found in server.notify.items()},
    )


def _retention(found: Retention | None) -> DesiredRetention:
    said = found.model_dump() if found else {}
    return DesiredRetention(**{key: value or 0 for key, value in said.items()})


def _only_what_is_kept(server: ServerFile) -> None:
    """Refuse what this version cannot keep: a setting that is written down but not kept is worse than none."""
    for name, environment in server.environments.items():
        if environment.instance != "main":
            sentence = f"environments.{name}.instance: this version knows the instance `main` only"
            raise UsageError(sentence, code="not-yet")


def _read(setting: str, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{setting}: cannot read {path}: {error}", code="unreadable-file") from None
    if not text:
        raise UsageError(f"{setting}: {path} is empty", code="unreadable-file")
    return text


def _login(setting: str, user: RegistryUser | None) -> DesiredLogin | None:
    if user is None:
        return None
    password = _read(f"{setting}.password_file", user.password_file)
    return DesiredLogin(username=user.username, password=password or "")


def _registry(setting: str, registry: Registry) -> DesiredRegistry:
    return DesiredRegistry(
        address=registry.address,
        ca_pem=_read(f"{setting}.ca_file", registry.ca_file) or "",
        push=_login(f"{setting}.push", registry.push),
        pull=_login(f"{setting}.pull", registry.pull),
    )


def _api(setting: str, found: ForgeApi | None) -> DesiredApi | None:
    if found is None:
        return None
    return DesiredApi(
        token=_read(f"{setting}.token_file", found.token_file) or "",
        api=(found.api or "").rstrip("/"),
        ca_pem=_read(f"{setting}.ca_file", found.ca_file) or "",
        private=found.private,
    )


def _project(setting: str, project: Project) -> DesiredProject:
    for name, path in (("ssh_key_file", project.git.ssh_key_file), ("known_hosts", project.git.known_hosts)):
        if path is not None:
            _read(f"{setting}.git.{name}", path)
    return DesiredProject(
        repo=project.repo,
        forge=project.forge,
        flow_file=project.flow_file,
        images=project.images,
        submodules=project.submodules,
        hook_secret=_read(f"{setting}.hook_secret_file", project.hook_secret_file),
        git_token=_read(f"{setting}.git.token_file", project.git.token_file),
        status=_api(f"{setting}.status", project.status),
        hook=_api(f"{setting}.hook", project.hook),
        git_ssh_key_file=str(project.git.ssh_key_file) if project.git.ssh_key_file else None,
        git_known_hosts_file=str(project.git.known_hosts) if project.git.known_hosts else None,
    )


def _channel(setting: str, channel: Channel) -> DesiredChannel:
    """Read the secrets of a channel: every setting that is a file, under its name without `_file`."""
    settings = channel.settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    files = {name: path for name, path in channel.settings if isinstance(path, Path)}
    return DesiredChannel(
        kind=channel.kind,
        settings={name: value for name, value in settings.items() if name not in files},
        secrets={name.removesuffix("_file"): _read(f"{setting}.{name}", path) or "" for name, path in files.items()},
        on=tuple(sorted(set(channel.on))),
        projects=channel.projects,
    )


def _environment(environment: Environment) -> DesiredEnvironment:
    return DesiredEnvironment(
        agents=environment.hosts,
        max_unavailable=environment.max_unavailable,
        on_failure=environment.on_failure,
        service=environment.service,
        branches=environment.branches or (),
        idle=int(environment.idle),
        overrides=overrides_to_json(environment.overrides),
        promote_from=environment.promote_from,
        verified_by=environment.verified_by,
        approved_by=environment.approved_by,
        rules=rules.to_json(environment.rules),
    )
