"""Receipts of releases: made when one is pushed, when it served somewhere, and when a person judged it."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.core import receipts as statements
from keepflow.core.receipts import Base, Build, Result, Subject
from keepflow.crypto import receipts as signed
from keepflow.engine.context import Master
from keepflow.store import environments, events, jobs, projects, receipts, releases, runs
from keepflow.store.deployments import Deployment
from keepflow.store.projects import Project
from keepflow.store.releases import StoredRelease
from keepflow.store.runs import Run
from keepflow.store.writer import Tx


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


def _subject(stored: StoredRelease) -> Subject | None:
    release = stored.release
    return Subject(release.repository, release.digest) if release.promotable and release.digest else None


def _run_of(conn: Connection, deployment: Deployment) -> Run:
    return runs.by_id(conn, jobs.by_id(conn, deployment.job_id).run_id)


def _page(master: Master, project: Project, run: Run) -> str:
    return f"{master.url()}/projects/{project.name}/runs/{run.number}"
