"""`caicloud.yml` of Circle and Cyclone: pre_build → build → integration → push → post_build → deploy."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from keepflow.config.adopt._draft import Draft, Part
from keepflow.config.adopt._source import Node
from keepflow.core.text import one_line

TITLE = "Circle / Cyclone (caicloud.yml)"
_SECTIONS = ("pre_build", "build", "integration", "post_build", "deploy")
_SINGLE = ("image", "context_dir", "dockerfile_name")
_CARRIED = {"image", "volumes", "commands", "outputs", "environment", "services"}
_REASONS = {
    "entrypoint": "a container gets its command here, never another entry point",
    "privileged": "no flow file can ask for privileges",
    "ports": "services are reached by their name on the run's own network, not by ports of the host",
    "links": "services are reached by their name",
    "extra_hosts": "no flow file can change how names resolve",
    "dns": "no flow file can change how names resolve",
    "volumes": "no flow file can mount a folder of the host",
    "devices": "no flow file can reach a device of the host",
    "pull": "an image that is not there is pulled",
    "auth_config": "logins to registries belong to the agent",
}


def fits(file: str, roots: list[Node]) -> bool:
    """Say whether a file is of this format."""
    return "caicloud" in file or roots[0].has("pre_build", "post_build", "integration")


def adopt(roots: list[Node], draft: Draft) -> None:
    """Make two flows: what every push ran there, and what a tag ran."""
    root = roots[0]
    draft.rest(root, "", _SECTIONS)
    tested = [*_section(root, "pre_build", draft), *_build(root, draft), *_section(root, "integration", draft)]
    draft.flow(root, "integration", {"push": "**", "pull_request": True})["steps"] = tested
    released = [*tested, {"push": None}, *_section(root, "post_build", draft)]
    draft.flow(root, "release", {"tag": "**", "manual": True})["steps"] = released
    for deploy in (root.get("deploy") or Node(root.line)).each:
        draft.lose(
            deploy,
            f"deploy ({(deploy.get('type') or Node(0)).text or 'unknown'})",
            "a release goes to an environment: name one with `deploy: NAME` and describe it in the master's file. "
            "A token that stands in this file should be made invalid",
        )


def _parts(root: Node, section: str) -> list[tuple[str, Node]]:
    """Return a section, or the named steps that it consists of, in their order."""
    node = root.get(section)
    if node is None or node.pairs is None:
        return []
    if node.has(*_SINGLE) or section == "integration":
        return [(section, node)]
    return [(name, part) for name, part in node.pairs if part.pairs is not None]


def _section(root: Node, section: str, draft: Draft) -> list[Any]:
    steps = []
    for name, node in _parts(root, section):
        place = section if name == section else f"{section}.{name}"
        commands = node.get("commands") or node.get("command")
        if node.has("context_dir", "dockerfile_name") and not node.has("image"):
            draft.lose(node, place, "a Dockerfile that only makes files: make it a stage of the one that is built")
        elif not node.has("image") or commands is None:
            draft.lose(node, place, "without image and commands it did nothing there, either")
        else:
            steps.append(_step(place, node, commands, draft))
    return steps


def _step(place: str, node: Node, commands: Node, draft: Draft) -> dict[str, Any]:
    at = _mounted(node, place, draft)
    here = at or "$WORKSPACE"
    copies = [f'cp -R {output} "{here}/"' for output in _outputs(node, at)]
    script = draft.script([*commands.texts, *copies], draft.variables(node.get("environment"), f"{place}.environment"))
    box = draft.box(node.get("image"), f"{place}.image", at)
    step = Part(node, {"name": one_line(place), "run": script, "image": box})
    services = node.get("services")
    if services is not None and services.pairs is not None:
        step["services"] = draft.services(services.pairs, f"{place}.services", _REASONS)
    draft.rest(node, place, _CARRIED | {"command"}, _REASONS)
    return step


def _mounted(node: Node, place: str, draft: Draft) -> str:
    """Return where the checkout lies in the container, "" for its own place; other mounts are noted."""
    at = ""
    for volume in (node.get("volumes") or Node(node.line)).each:
        source, colon, target = (volume.text or "").partition(":")
        if colon and source in (".", "./"):
            at = str(PurePosixPath(target))
        else:
            draft.lose(volume, f"{place}.volumes", _REASONS["volumes"])
    return at


def _outputs(node: Node, at: str) -> list[str]:
    """Return the files that are to lie at the top of the checkout and do not yet."""
    outputs = node.get("outputs")
    paths = [PurePosixPath(text) for text in outputs.texts] if outputs else []
    return [str(path) for path in paths if not at or path.parent != PurePosixPath(at)]


def _build(root: Node, draft: Draft) -> list[Any]:
    steps = []
    for name, node in _parts(root, "build") or [("build", Node(root.line))]:
        context = _text(node, "context_dir") or "."
        file = _text(node, "dockerfile_name")
        settings = {"context": context} if context != "." else {}
        if file:
            settings["dockerfile"] = str(PurePosixPath(context) / file)
        steps.append(draft.build(node, settings))
        draft.rest(node, name, {"context_dir", "dockerfile_name"})
    return steps


def _text(node: Node, key: str) -> str:
    found = node.get(key)
    return found.text or "" if found else ""
