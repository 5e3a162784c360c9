"""Receipts: statements about the digest of an image — built by this run, tested by this run or this person.

They are in-toto Statements v1 as plain data: SLSA provenance v1 and test-result v0.1. Master, agent and `keepflow
verify` build and read them here, so that none of them believes what another would refuse; `crypto.receipts` signs them.
Fields that neither format has are named `keepflow_…`, as SLSA asks. Times are UTC microseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from keepflow.core.releases import is_digest
from keepflow.core.text import quoted
from keepflow.errors import BadReceipt

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
BUILD_TYPE = "urn:keepflow:build:flow-run:v1"

#: What a person or a push could decide about a build; any other parameter would be one that nobody here judged.
_PARAMETERS = frozenset({"repository", "ref", "flow", "inputs"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = 253_402_300_799_999_999  #: the last microsecond of the year 9999, which calendars still know


@dataclass(frozen=True, slots=True)
class Subject:
    """What a statement is about: one manifest digest in one repository."""

    repository: str
    digest: str


@dataclass(frozen=True, slots=True)
class Base:
    """An image that another was built on, as the built image itself names it."""

    reference: str
    digest: str


@dataclass(frozen=True, slots=True)
class Build:
    """How an image came about. `run` is the address of the run's page, `builder` names the master (`builder_id`)."""

    repository: str
    ref: str
    flow: str
    sha: str
    run: str
    builder: str
    started_at: int
    finished_at: int
    inputs: Mapping[str, str] = field(default_factory=dict)
    bases: tuple[Base, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """That a digest was tested: by a person, or by a run whose deployment of it served (then `person` is "")."""

    passed: bool
    environment: str  #: "project/name"
    deployment: str
    run: str  #: address of the page of the run that deployed it
    person: str
    at: int
    note: str = ""


def builder_id(url: str, key_id: str) -> str:
    """Name a master: where it is, and by which key it is known wherever it is."""
    return f"{url}#{key_id}"


def provenance(subject: Subject, build: Build) -> dict[str, Any]:
    """Return the statement that a run built this digest."""
    parameters: dict[str, Any] = {"repository": build.repository, "ref": build.ref, "flow": build.flow}
    if build.inputs:
        parameters["inputs"] = dict(build.inputs)
    code = {"uri": _git_uri(build.repository, build.ref), "digest": {"gitCommit": build.sha}}
    bases = [{"uri": base.reference, "digest": _digest_set(base.digest)} for base in build.bases]
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": parameters,
            "resolvedDependencies": [code, *bases],
        },
        "runDetails": {
            "builder": {"id": build.builder},
            "metadata": {
                "invocationId": build.run,
                "startedOn": _timestamp(build.started_at),
                "finishedOn": _timestamp(build.finished_at),
            },
        },
    }
    return _statement(subject, PROVENANCE, predicate)


def tested(subject: Subject, result: Result) -> dict[str, Any]:
    """Return the statement that this digest was tested, and how that ended."""
    by = {"person": result.person} if result.person else {"run": result.run}
    predicate = {
        "result": "PASSED" if result.passed else "FAILED",
        "configuration": [{"name": result.environment}],
        "url": result.run,
        "keepflow_by": by,
        "keepflow_at": result.at,
        "keepflow_deployment": result.deployment,
        "keepflow_note": result.note,
    }
    return _statement(subject, TEST_RESULT, predicate)


def read_provenance(statement: Mapping[str, Any], subject: Subject, builders: Collection[str]) -> Build:
    """Return what a provenance says about this subject; `builders` are the key ids of masters that are believed.

    Raises BadReceipt, which names the field: another subject, builder or kind of build, or a parameter unknown here.
    """
    _check_head(statement, subject, PROVENANCE)
    definition = _mapping(statement, "predicate", "buildDefinition")
    if definition.get("buildType") != BUILD_TYPE:
        raise _bad("type", "predicate.buildDefinition.buildType", f"is not {BUILD_TYPE}")
    parameters = _mapping(definition, "externalParameters", at="predicate.buildDefinition")
    unknown = sorted(str(name) for name in parameters if name not in _PARAMETERS)
    if unknown:
        where = "predicate.buildDefinition.externalParameters"
        raise _bad("parameters", where, f"has parameters unknown here: {', '.join(map(quoted, unknown))}")
    details = _mapping(statement, "predicate", "runDetails")
    builder = _text(_mapping(details, "builder", at="predicate.runDetails"), "id", "predicate.runDetails.builder")
    if builder.rpartition("#")[2] not in builders:
        raise _bad(
            "builder", "predicate.runDetails.builder.id", f"is {quoted(builder)}, a master that is not trusted here"
        )
    metadata = _mapping(details, "metadata", at="predicate.runDetails")
    code, bases = _dependencies(definition)
    at = "predicate.buildDefinition.externalParameters"
    inputs = parameters.get("inputs", {})
    if not isinstance(inputs, Mapping) or not all(isinstance(value, str) for value in inputs.values()):
        raise _bad("parameters", f"{at}.inputs", "is not a list of names and texts")
    return Build(
        repository=_text(parameters, "repository", at),
        ref=_text(parameters, "ref", at),
        flow=_text(parameters, "flow", at),
        sha=code,
        run=_text(metadata, "invocationId", "predicate.runDetails.metadata"),
        builder=builder,
        started_at=_moment(metadata, "startedOn"),
        finished_at=_moment(metadata, "finishedOn"),
        inputs=dict(inputs),
        bases=bases,
    )


def read_test_result(statement: Mapping[str, Any], subject: Subject) -> Result:
    """Return what a test result says about this subject; raises BadReceipt, which names the field."""
    _check_head(statement, subject, TEST_RESULT)
    predicate = _mapping(statement, "predicate")
    result = predicate.get("result")
    if result not in ("PASSED", "FAILED"):
        raise _bad("result", "predicate.result", "is neither PASSED nor FAILED")
    by = _mapping(predicate, "keepflow_by", at="predicate")
    if len(by) != 1 or next(iter(by)) not in ("person", "run"):
        raise _bad("unreadable", "predicate.keepflow_by", "names neither a person nor a run")
    who = _text(by, next(iter(by)), "predicate.keepflow_by")
    at = predicate.get("keepflow_at")
    if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at <= LATEST:
        raise _bad("unreadable", "predicate.keepflow_at", "is not a time")
    configuration = predicate.get("configuration")
    first = configuration[0] if isinstance(configuration, list) and len(configuration) == 1 else None
    if not isinstance(first, Mapping):
        raise _bad("unreadable", "predicate.configuration", "does not name one environment")
    return Result(
        passed=result == "PASSED",
        environment=_text(first, "name", "predicate.configuration.0"),
        deployment=_text(predicate, "keepflow_deployment", "predicate"),
        run=_text(predicate, "url", "predicate"),
        person=who if "person" in by else "",
        at=at,
        note=_text(predicate, "keepflow_note", "predicate", empty=True),
    )


def verdict(results: Iterable[Result]) -> Result | None:
    """Return the result that counts, or None when there is none.

    What a person said outranks what runs did, and the newest counts; of two at one moment, the one that failed.
    """
    return max(results, key=lambda result: (bool(result.person), result.at, not result.passed), default=None)


def predicate_type(statement: Mapping[str, Any]) -> str:
    """Return what kind of statement this is, "" when it does not say."""
    kind = statement.get("predicateType")
    return kind if isinstance(kind, str) else ""


def subject_name(statement: Mapping[str, Any]) -> str:
    """Return the repository a statement is about, "" when it does not say."""
    subjects = statement.get("subject")
    first = subjects[0] if isinstance(subjects, list) and subjects else None
    name = first.get("name") if isinstance(first, Mapping) else None
    return name if isinstance(name, str) else ""


def _statement(subject: Subject, kind: str, predicate: dict[str, Any]) -> dict[str, Any]:
    named = {"name": subject.repository, "digest": _digest_set(subject.digest)}
    return {"_type": STATEMENT, "subject": [named], "predicateType": kind, "predicate": predicate}


def _check_head(statement: Mapping[str, Any], subject: Subject, kind: str) -> None:
    if statement.get("_type") != STATEMENT:
        raise _bad("type", "_type", f"is not {STATEMENT}")
    if statement.get("predicateType") != kind:
        raise _bad("type", "predicateType", f"is not {kind}")
    about = {"name": subject.repository, "digest": _digest_set(subject.digest)}
    if statement.get("subject") != [about]:
        raise _bad("subject", "subject", f"is not {subject.repository}@{subject.digest}")


def _dependencies(definition: Mapping[str, Any]) -> tuple[str, tuple[Base, ...]]:
    """Return the commit and the base images a build was made of."""
    where = "predicate.buildDefinition.resolvedDependencies"
    entries = definition.get("resolvedDependencies")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, Mapping) for entry in entries):
        raise _bad("unreadable", where, "names no commit")
    commit = _text(_mapping(entries[0], "digest", at=f"{where}.0"), "gitCommit", f"{where}.0.digest")
    bases = []
    for index, entry in enumerate(entries[1:], 1):
        digest = "sha256:" + _text(
            _mapping(entry, "digest", at=f"{where}.{index}"), "sha256", f"{where}.{index}.digest"
        )
        if not is_digest(digest):
            raise _bad("unreadable", f"{where}.{index}.digest.sha256", "is not a digest")
        bases.append(Base(_text(entry, "uri", f"{where}.{index}"), digest))
    return commit, tuple(bases)


def _mapping(data: Mapping[str, Any], *names: str, at: str = "") -> Mapping[str, Any]:
    found: Any = data
    for name in names:
        at = f"{at}.{name}".removeprefix(".")
        found = found.get(name)
        if not isinstance(found, Mapping):
            raise _bad("unreadable", at, "is missing")
    return found  # type: ignore[no-any-return]  # the loop let nothing else through


def _text(data: Mapping[str, Any], name: str, at: str, *, empty: bool = False) -> str:
    found = data.get(name)
    if not isinstance(found, str) or not (found or empty):
        raise _bad("unreadable", f"{at}.{name}", "is missing")
    return found


def _moment(data: Mapping[str, Any], name: str) -> int:
    at = "predicate.runDetails.metadata"
    try:
        moment = datetime.fromisoformat(_text(data, name, at))
    except ValueError:
        raise _bad("unreadable", f"{at}.{name}", "is not a time") from None
    if moment.tzinfo is None:
        raise _bad("unreadable", f"{at}.{name}", "has no zone")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _timestamp(microseconds: int) -> str:
    """Write a time as both formats want it (RFC 3339, UTC)."""
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat().replace("+00:00", "Z")


def _digest_set(digest: str) -> dict[str, str]:
    algorithm, _, value = digest.partition(":")
    return {algorithm: value}


def _git_uri(repository: str, ref: str) -> str:
    """Return a repository's address as package URIs spell it: `git+https://…@refs/heads/master`."""
    if "://" in repository:
        address = repository
    elif repository.startswith("/"):
        address = f"file://{repository}"
    else:  # host:path, as ssh writes it
        address = "ssh://" + repository.replace(":", "/", 1)
    return f"git+{address}@{ref}"


def _bad(code: str, where: str, sentence: str) -> BadReceipt:
    return BadReceipt(f"{where} {sentence}", code=f"receipt-{code}", field=where)
