"""Receipts of releases: made when one is pushed, when it served somewhere, and when a person judged it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from keepflow.core import receipts as statements
from keepflow.core.evidence import Evidence
from keepflow.core.receipts import Base, Build, Result, Subject
from keepflow.crypto import dsse
from keepflow.crypto import receipts as signed
from keepflow.crypto.keys import PublicKey
from keepflow.crypto.receipts import Trust
from keepflow.engine.context import Master
from keepflow.errors import BadReceipt, NotFound, Refused
from keepflow.store import environments, events, jobs, projects, receipts, releases, runs
from keepflow.store.deployments import Deployment
from keepflow.store.environments import Environment
from keepflow.store.preparations import Preparation
from keepflow.store.projects import Project
from keepflow.store.receipts import StoredReceipt
from keepflow.store.releases import StoredRelease
from keepflow.store.runs import Run
from keepflow.store.writer import Tx
from keepflow.wire import orders


def add_provenance(tx: Tx, master: Master, release_id: int, bases: tuple[Base, ...], now: int) -> None:
    """Sign that a run built a pushed release, once; a release that no registry holds gets no receipt."""
    stored = releases.by_id(tx.conn, release_id)
    subject = _subject(stored)
    if subject is None or receipts.has_provenance(tx.conn, release_id):
        return
    project, run = projects.by_id(tx.conn, stored.project_id), runs.by_id(tx.conn, stored.run_id)
    build = Build(
        repository=project.repo,
        ref=run.ref,
        flow=run.flow,
        sha=stored.sha,
        run=_page(master, project, run),
        builder=statements.builder_id(master.url(), master.order_key.public.key_id),
        started_at=run.started_at or run.created_at,
        finished_at=now,
        inputs=run.event.inputs,
        bases=bases,
    )
    receipts.add(
        tx.conn,
        project_id=project.id,
        release_id=stored.id,
        repository=subject.repository,
        digest=subject.digest,
        kind="provenance",
        made_by=f"{project.name}#{run.number}",
        envelope=signed.seal(statements.provenance(subject, build), master.order_key),
        now=now,
    )
    data = {"kind": "provenance", "digest": subject.digest}
    events.add(tx, now, "receipt-made", project_id=project.id, run_id=run.id, data=data)


def add_test_result(
    tx: Tx, master: Master, deployment: Deployment, *, passed: bool, person: str, note: str, now: int
) -> int | None:
    """Sign how a deployment of a pushed release was judged and return the receipt's id.

    `person` is who marked it tested or rejected, "" for the run that deployed it and saw it serve. A release that no
    registry holds can never be promoted and gets no receipt: None.
    """
    stored = releases.by_id(tx.conn, deployment.release_id)
    subject = _subject(stored)
    if subject is None:
        return None
    project, run = projects.by_id(tx.conn, stored.project_id), _run_of(tx.conn, deployment)
    environment = environments.by_id(tx.conn, deployment.environment_id)
    result = Result(
        passed=passed,
        environment=f"{project.name}/{environment.name}",
        deployment=deployment.id,
        run=_page(master, project, run),
        person=person,
        at=now,
        note=note,
    )
    receipt = receipts.add(
        tx.conn,
        project_id=project.id,
        release_id=stored.id,
        repository=subject.repository,
        digest=subject.digest,
        kind="test-result",
        passed=passed,
        made_by=person or f"{project.name}#{run.number}",
        by_person=bool(person),
        envelope=signed.seal(statements.tested(subject, result), master.order_key),
        now=now,
    )
    events.add(
        tx,
        now,
        "receipt-made",
        actor=person,
        project_id=project.id,
        run_id=run.id,
        environment_id=environment.id,
        deployment_id=deployment.id,
        data={"kind": "test-result", "digest": subject.digest, "passed": passed},
    )
    return receipt


def countersign(
    tx: Tx, master: Master, project: Project, digest: str, envelope: dict[str, Any], key: PublicKey, by: str, now: int
) -> None:
    """Keep a provenance of ours that somebody else's key signed, too; orders carry it from then on.

    Raises BadReceipt when anything in it is not ours or not signed by that key; NotFound, and Refused `signed-already`.
    """
    known = {each.key_id: each for each in (*keys_of(tx.conn, master, project, digest), key)}
    payload = dsse.open_to_the_last_byte(envelope, statements.PAYLOAD_TYPE, known)
    ours = [
        receipt
        for receipt in receipts.of_digest(tx.conn, project.id, digest)
        if receipt.kind == "provenance" and dsse.decode(receipt.envelope["payload"]) == payload
    ]
    if not ours:
        raise NotFound(f"no run of {project.name} said this of {digest[:19]}", code="no-receipt")
    signers = {signature["keyid"] for signature in envelope["signatures"]}
    if not signers & {each.key_id for each in master.keys.trusted} or key.key_id not in signers:
        raise BadReceipt("signatures: one of this master and one of the named key are needed", field="signatures")
    if any(receipt.witness == key.text for receipt in ours) or key in master.keys.trusted:
        raise Refused(f"key {key.key_id} signed this already", code="signed-already")
    receipts.add(
        tx.conn,
        project_id=project.id,
        release_id=ours[0].release_id,
        repository=ours[0].repository,
        digest=digest,
        kind="provenance",
        made_by=by,
        by_person=True,
        witness=key.text,
        envelope=envelope,
        now=now,
    )
    data = {"kind": "countersigned", "digest": digest, "key": key.key_id}
    events.add(tx, now, "receipt-made", actor=by, project_id=project.id, data=data)


def _witnesses(conn: Connection, project: Project, digest: str) -> list[PublicKey]:
    found = receipts.of_digest(conn, project.id, digest)
    return [PublicKey.parse(receipt.witness) for receipt in found if receipt.witness]


def keys_of(conn: Connection, master: Master, project: Project, digest: str) -> list[PublicKey]:
    """List the public keys that may have signed what is known of a digest."""
    return list(dict.fromkeys((*master.keys.trusted, *_witnesses(conn, project, digest))))


@dataclass(frozen=True, slots=True)
class Known:
    """The receipts an order of a release carries (how it was built, what a person said last, what passed last), and
    what they say, as far as this master itself signed them."""

    receipts: tuple[StoredReceipt, ...]
    says: Evidence


def of_release(conn: Connection, master: Master, stored: StoredRelease) -> Known:
    """Read what is known of a release and check every word of it, as the agent will."""
    subject = _subject(stored)
    if subject is None:
        return Known((), Evidence())
    chosen = _chosen(receipts.of_digest(conn, stored.project_id, subject.digest), stored)
    trust = Trust(master.keys.trusted)
    said: list[Build | Result] = []
    for receipt in chosen:
        try:
            said.append(signed.read(receipt.envelope, subject, trust))
        except BadReceipt as error:
            return Known(chosen, Evidence(fault=f"receipt {receipt.id} of this digest does not fit: {error}"))
    build = next((each for each in said if isinstance(each, Build)), None)
    return Known(chosen, Evidence(build, statements.verdict(each for each in said if isinstance(each, Result))))


def wanted(deployment: Deployment | Preparation, environment: Environment, *, outside_rules: bool) -> orders.Evidence:
    """Return how much the receipts of a deployment's order must show; the host's own file may ask for more."""
    if environment.promote_from is None:
        return "none"
    if deployment.kind == "rehearsal":
        return "built"
    again = deployment.kind in ("rollback", "restore", "adopt", "stage")
    return "passed" if outside_rules or again else "tested"


def _chosen(found: list[StoredReceipt], stored: StoredRelease) -> tuple[StoredReceipt, ...]:
    """Pick what decides: of each kind the newest."""
    newest = [receipt for receipt in reversed(found) if receipt.repository == stored.release.repository]
    built = [receipt for receipt in newest if receipt.kind == "provenance" and receipt.release_id == stored.id]
    tests = [receipt for receipt in newest if receipt.kind == "test-result"]
    by_people = [receipt for receipt in tests if receipt.by_person]
    passed = [receipt for receipt in tests if receipt.passed]
    return tuple({receipt.id: receipt for receipt in (*built[:1], *by_people[:1], *passed[:1])}.values())


def _subject(stored: StoredRelease) -> Subject | None:
    release = stored.release
    return Subject(release.repository, release.digest) if release.promotable and release.digest else None


def _run_of(conn: Connection, deployment: Deployment) -> Run:
    return runs.by_id(conn, jobs.by_id(conn, deployment.job_id).run_id)


def _page(master: Master, project: Project, run: Run) -> str:
    return f"{master.url()}/projects/{project.name}/runs/{run.number}"
