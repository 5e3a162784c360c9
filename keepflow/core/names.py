"""Names that reach hosts, files and URLs: what is legal, and how they are built."""

from __future__ import annotations

import hashlib
import re

#: One DNS-like label: safe as container name, directory, upstream name and label value alike.
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
#: What git refuses in a ref name (`git check-ref-format`), the parts between slashes apart.
_NOT_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_KEEP_TAG = re.compile(r"kf-[a-z0-9-]+-keep:[0-9a-f]{1,20}")
REF_LIMIT = 1024  #: bytes; longer names do not fit into a file of git's
SLOTS = ("blue", "green")
BRANCH_LIMIT = 17  #: characters of a branch's name in that of its instance
BASE_LIMIT = 40 - BRANCH_LIMIT - 8  #: characters of an environment that has an instance for each branch
RELEASE = "release"  #: stands in a container's name where the others have their slot


def is_name(text: str) -> bool:
    """Say whether a text is a legal name of a project, environment, service, instance, agent, flow or group."""
    return NAME.fullmatch(text) is not None


def is_sha(text: str) -> bool:
    """Say whether a text is a full commit id."""
    return SHA.fullmatch(text) is not None


def is_ref(text: str) -> bool:
    """Say whether a text is a full ref name that git accepts, like `refs/heads/dev`; it may still be hostile."""
    if not text.startswith("refs/") or text.count("/") < 2 or _NOT_IN_REF.search(text):
        return False
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair: no bytes, so no ref
        return False
    parts = text.split("/")
    return size <= REF_LIMIT and not text.endswith(("/", ".")) and not any(_is_bad_part(part) for part in parts)


def _is_bad_part(part: str) -> bool:
    return not part or part.startswith(".") or part.endswith(".lock")


def prefix(service: str, instance: str) -> str:
    """Return the start of every name on a host that belongs to one (service, instance)."""
    return f"kf-{service}-{instance}"


def container(service: str, instance: str, slot: str) -> str:
    """Return the exact container name of a slot."""
    return f"{prefix(service, instance)}-{slot}"


def network(service: str, instance: str) -> str:
    """Return the exact name of the slot network."""
    return f"{prefix(service, instance)}-net"


def volume(service: str, instance: str, name: str) -> str:
    """Return the exact name of a named volume."""
    return f"{prefix(service, instance)}-{name}"


def keep_tag(service: str, instance: str, identity: str) -> str:
    """Return the local tag that keeps an image from being pruned; `identity` is `sha256:<hex>`."""
    return f"{prefix(service, instance)}-keep:{identity.removeprefix('sha256:')[:20]}"


def is_keep_tag(tag: str) -> bool:
    """Say whether a tag is one that keeps an image from being pruned."""
    return _KEEP_TAG.fullmatch(tag) is not None


def branch_instance(ref: str) -> str:
    """Return the instance that a branch gets of a service with one for each: readable, and another for every ref."""
    digest = hashlib.sha256(ref.encode(errors="surrogatepass")).hexdigest()[:6]
    return f"{slug(ref.removeprefix('refs/heads/'), BRANCH_LIMIT)}-{digest}"


def other_slot(slot: str) -> str:
    """Return the slot that is not this one."""
    return SLOTS[1] if slot == SLOTS[0] else SLOTS[0]


def slug(text: str, limit: int = 40) -> str:
    """Turn any text into a legal name, for directories and tags made from branch names (not unique by itself)."""
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:limit].strip("-")
    return cleaned or "x"


#: Labels on every container keepflow makes.
LABEL_SERVICE = "keepflow.service"
LABEL_INSTANCE = "keepflow.instance"
LABEL_SLOT = "keepflow.slot"
LABEL_OWNER = "keepflow.owner"  # "agent:<name>" or "script"
LABEL_ENVIRONMENT = "keepflow.environment"
LABEL_DEPLOYMENT = "keepflow.deployment"
LABEL_FENCE = "keepflow.fence"
LABEL_IDENTITY = "keepflow.identity"  # the digest (registry origin) or image id (local origin) of the release
LABEL_RESTART = "keepflow.restart"  # the restart policy it has while it serves; a retired one has none
LABEL_DESCRIPTION = "keepflow.description"  # hash of the description it was created from

#: Labels on what is made for a job; see `core.boxes`.
LABEL_AGENT = "keepflow.agent"  # key id of the agent
LABEL_ATTEMPT = "keepflow.attempt"  # the mark of the attempt, known to no other
LABEL_COMPOSE = "com.docker.compose.project"  # Compose's own, on all that it makes
LABEL_RUN = "keepflow.run"  # PROJECT#N
LABEL_JOB = "keepflow.job"


_NOT_IN_IMAGE_TAG = re.compile(r"[^A-Za-z0-9_.-]+")
_PULL_REQUEST = re.compile(r"refs/(?:pull|merge-requests)/([1-9][0-9]{0,17})/head")


def pull_request_number(ref: str) -> int | None:
    """Return the number of the pull request whose head a ref is; None for any other ref."""
    found = _PULL_REQUEST.fullmatch(ref)
    return int(found[1]) if found else None


def image_tag(ref: str) -> str:
    """Return the name of a branch, a tag or a pull request (`pr-7`) as a tag that an image may have.

    A name that has to be changed for that gets six characters of its own at the end, so that two do not become one.
    """
    request = pull_request_number(ref)
    name = f"pr-{request}" if request else ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
    plain = _NOT_IN_IMAGE_TAG.sub("-", name).lstrip(".-")[:100]
    if plain and plain == name:
        return plain
    own = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:6]
    return f"{plain.rstrip('-')}-{own}" if plain else own
