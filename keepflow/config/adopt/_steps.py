"""What Woodpecker and Drone have in common: containers one after the other that share a checkout, and conditions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from keepflow.config.adopt._draft import Draft, Part
from keepflow.config.adopt._source import Node
from keepflow.core.text import one_line

_CARRIED = {"name", "image", "commands", "environment", "when", "depends_on", "failure", "settings", "secrets"}
_REASONS = {
    "privileged": "no flow file can ask for privileges",
    "volumes": "no flow file can mount a folder of the host",
    "detach": "a container that goes on beside the others is a service",
    "entrypoint": "a container gets its command here, never another entry point",
    "directory": "begin the script with cd",
    "pull": "an image that is not there is pulled",
    "ports": "services are reached by their name on the run's own network",
    "network_mode": "a run has its own network",
    "dns": "no flow file can change how names resolve",
    "extra_hosts": "no flow file can change how names resolve",
    "devices": "no flow file can reach a device of the host",
    "user": "a container runs as the account of the job",
    "shm_size": "limits of a container are memory, cpus and pids",
    "backend_options": "what the agent allows is said by its own file",
}
_EVENTS = {"push": "push", "tag": "tag", "pull_request": "pull_request", "manual": "manual", "custom": "manual"}
_DOCKER_PLUGINS = ("plugins/docker", "plugin-docker-buildx", "plugins/buildx")
_OF_DOCKER = {"repo", "registry", "tags", "tag", "dockerfile", "context", "target", "build_args", "auto_tag"}


@dataclass(frozen=True, slots=True)
class Condition:
    """When something runs: the events, and the status of what ran before."""

    on: dict[str, Any]
    after_failure: bool = False
    after_success: bool = True


def pipeline(root: Node, draft: Draft, name: str, conditions: Node | None, steps: Node | None) -> None:
    """Make a flow of one pipeline; `conditions` are those of the whole of it."""
    entries = [
        (key or f"step-{index}", node) for index, (key, node) in enumerate(steps.named if steps else (), start=1)
    ]
    whole = condition(conditions, draft, "the events")
    if conditions is not None and not whole.on:
        draft.lose(conditions, name, "nothing that starts it there is known here, so people start it")
        whole = Condition({"manual": True})
    elif not whole.on:
        whole = Condition(_common(entries, draft) or {"push": "**", "tag": "**", "pull_request": True, "manual": True})
    flow = draft.flow(root, name, whole.on)
    if services := root.get("services"):
        flow["services"] = draft.services(services.named, "services", _REASONS)
    made = _made(entries, whole, draft)
    if any(set(one) - {"steps"} for one in made.values()) or any(node.has("depends_on") for _, node in entries):
        flow["jobs"] = _in_order(made, entries)
    else:
        flow["steps"] = [step for one in made.values() for step in one["steps"]]


def condition(node: Node | None, draft: Draft, place: str) -> Condition:
    """Read a condition; what cannot be said in `on:` is noted."""
    if node is None:
        return Condition({})
    if node.items is not None and len(node.items) > 1:
        draft.lose(node.items[1], place, "several conditions, one of which must hold: the first one was taken")
    one = node.each[0] if node.each else Node(node.line)
    on: dict[str, Any] = {}
    events = _names(one, "event")
    branches = _patterns(one, "branch")
    for event in events or (["push"] if branches else []):
        known = _EVENTS.get(event)
        if known is None:
            draft.lose(one, f"{place}.event: {event}", "keepflow knows push, tag, pull_request, manual and schedule")
        elif known in ("push", "tag"):
            on[known] = branches or "**" if known == "push" else "**"
        else:
            on[known] = True
    if "push" in on and (paths := _patterns(one, "path")):
        on["paths"] = paths
    for ref in _names(one, "ref"):
        _add_ref(on, ref, one, draft, place)
    status = _names(one, "status")
    draft.rest(one, place, {"event", "branch", "path", "ref", "status"})
    return Condition(on, "failure" in status, not status or "success" in status)


def _add_ref(on: dict[str, Any], ref: str, node: Node, draft: Draft, place: str) -> None:
    for prefix, key in (("refs/heads/", "push"), ("refs/tags/", "tag")):
        if ref.startswith(prefix):
            before = on.get(key, [])
            on[key] = [*(before if isinstance(before, list) else [before]), ref.removeprefix(prefix)]
            return
    if ref.startswith("refs/pull/"):
        on["pull_request"] = True
    else:
        draft.lose(node, f"{place}.ref: {ref}", "a flow starts on branches, tags and pull requests")


def _common(entries: list[tuple[str, Node]], draft: Draft) -> dict[str, Any]:
    """Return the events of all steps, when every step has a condition and all have the same one."""
    quiet = Draft(draft.image)
    found = [condition(node.get("when"), quiet, "").on for _, node in entries]
    return found[0] if found and all(one == found[0] for one in found) else {}


def _made(entries: list[tuple[str, Node]], whole: Condition, draft: Draft) -> dict[str, dict[str, Any]]:
    """Return each step that is carried over as a job of its own, by the name it had."""
    made: dict[str, dict[str, Any]] = {}
    for name, node in entries:
        own = condition(node.get("when"), Draft(draft.image), "")
        if own.on and own.on != whole.on and not _covers(own.on, whole.on):
            why = "it ran only on some events: give it a flow of its own, here it would always run"
            draft.lose(node, f"step {name}", why)
            continue
        if (steps := _steps_of(name, node, draft)) is None:
            continue
        job = Part(node, {"steps": steps})
        if own.after_failure:
            job["when"] = "always" if own.after_success else "failure"
        failure = node.get("failure")
        if failure is not None and failure.text == "ignore":
            job["allow_failure"] = True
        made[name] = job
    return made


def _covers(own: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    """Say whether a step's condition holds whenever its pipeline runs."""
    return all(key in own and own[key] in (value, "**", True) for key, value in whole.items())


def _steps_of(name: str, node: Node, draft: Draft) -> list[Any] | None:
    image, commands, settings = node.get("image"), node.get("commands"), node.get("settings")
    draft.rest(node, f"step {name}", _CARRIED, _REASONS)
    if commands is None:
        return _plugin(name, node, image.text or "" if image else "", settings, draft)
    variables, secrets = _environment(node, name, draft)
    step = Part(node, {"name": one_line(name), "run": draft.script(commands.texts, variables)})
    if (box := draft.box(image, f"step {name}.image")) is not None:
        step["image"] = box
    if secrets:
        step["secrets"] = secrets
    return [step]


def _environment(node: Node, name: str, draft: Draft) -> tuple[dict[str, str], list[Any]]:
    """Return plain variables, and the secrets of a step as it names them here."""
    environment = node.get("environment") or Node(node.line)
    plain, secrets = [], list[Any]()
    for key, value in environment.pairs or ():
        source = value.get("from_secret")
        if source is None or source.text is None:
            plain.append((key, value))
        else:
            secrets.append(key if source.text == key else {"name": source.text, "env": key})
    asked = node.get("secrets")
    secrets += [text.upper() for text in asked.texts if text.upper() not in secrets] if asked else []
    values = environment if environment.items is not None else Node(node.line, pairs=tuple(plain))
    return draft.variables(values, f"step {name}.environment"), secrets


def _plugin(name: str, node: Node, image: str, settings: Node | None, draft: Draft) -> list[Any] | None:
    """Carry the plugin over that builds and pushes an image; all others are programs of their own."""
    if not any(known in image for known in _DOCKER_PLUGINS):
        what = f"the plugin {image}" if image else "a step without commands"
        draft.lose(node, f"step {name}", f"{what} has no script: write what it did as `run`")
        return None
    settings = settings or node
    build = {
        ours: found.text
        for ours, theirs in (("context", "context"), ("dockerfile", "dockerfile"), ("target", "target"))
        if (found := settings.get(theirs)) is not None and found.text
    }
    draft.rest(
        settings,
        f"step {name}.settings",
        _OF_DOCKER | _CARRIED,
        {"username": "logins belong to the master", "password": "logins belong to the master"},
    )
    draft.lose(node, f"step {name}", "the master says which registry and names may be pushed: `push` uses that one")
    return [draft.build(node, build), {"push": None}]


def _in_order(made: dict[str, dict[str, Any]], entries: list[tuple[str, Node]]) -> dict[str, Any]:
    """Wire jobs: by `depends_on` when any step has it, else each after the one before."""
    quiet = Draft("")
    names: dict[str, str] = {}
    for name in made:
        names[name] = quiet.free_name(Node(0), "job", name, names.values())
    graph = any(node.has("depends_on") for _, node in entries)
    jobs: dict[str, Any] = {}
    before: list[str] = []
    for name, node in entries:
        if name not in made:
            continue
        wanted = node.get("depends_on")
        needs = [names[text] for text in wanted.texts if text in names] if wanted else []
        if not graph:
            needs = before[-1:]
        jobs[names[name]] = Part(node, {**({"needs": needs} if needs else {}), **made[name]})
        if made[name].get("when") != "failure":
            before.append(names[name])
        elif not graph and before:
            jobs[names[name]]["needs"] = list(before)
    return jobs


def _names(node: Node, key: str) -> list[str]:
    found = node.get(key)
    if found is not None and found.pairs is not None:
        found = found.get("include")
    return found.texts if found else []


def _patterns(node: Node, key: str) -> list[str]:
    """Return patterns; what is excluded becomes `!pattern`."""
    found = node.get(key)
    if found is None or found.pairs is None:
        return found.texts if found else []
    include, exclude = found.get("include"), found.get("exclude")
    taken = include.texts if include else ["**"] if exclude else []
    return [*taken, *(f"!{text}" for text in (exclude.texts if exclude else []))]


def unknown(root: Node, draft: Draft, carried: Collection[str], reasons: Mapping[str, str]) -> None:
    """Note what stands at the top of a file and is not carried over."""
    draft.rest(root, "", carried, {"workspace": "the checkout lies where the agent keeps it", **reasons})
