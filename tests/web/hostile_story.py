"""A story in which every text that can come from outside is an attack on the page that shows it."""

from __future__ import annotations

from keepflow.store import agents, deliveries, environments
from keepflow.wire import messages
from tests.hostile import NAMES
from tests.web import payloads, story
from tests.web.story import Story, pushed

CORPUS = (*payloads.XSS, *payloads.TEMPLATES, *payloads.TERMINAL)


def tell(told: Story) -> list[str]:
    """Tell it from the beginning, and return the paths of all pages that show some of it."""
    story.tell(told)
    return tell_more(told)


def tell_more(told: Story) -> list[str]:
    """Tell it into a story that was told already, and return the paths of all pages that show some of it."""
    numbers = [_push(told, index) for index in range(0, len(CORPUS), 12)]
    _warn(told)
    _point_elsewhere(told)
    bad = _fail_a_promote(told)
    runs = [f"/projects/keepwork/runs/{number}" for number in (*numbers, bad)]
    with told.master.database.read() as conn:
        found = [delivery.id for delivery in deliveries.page(conn, told.project().id, None, 200)]
    return [
        *runs,
        *(f"/projects/keepwork/deliveries/{number}" for number in found),
        "/",
        "/runs?project=keepwork",
        "/agents",
        "/projects/keepwork",
        "/projects/keepwork/deliveries",
        "/projects/keepwork/environments",
        "/projects/keepwork/environments/production/deployments",
        f"/projects/keepwork/environments/production/promote?source={numbers[0]}",
    ]


def _push(told: Story, index: int) -> int:
    """Push one hostile commit, run hostile steps, and fail with a hostile reason."""
    texts = [CORPUS[(index + offset) % len(CORPUS)] for offset in range(12)]
    branch = NAMES[index % len(NAMES)]
    sha = told.commit("\n".join(texts).replace("\0", ""), "A " + texts[1].replace("\0", ""))
    number = told.push("test", sha, "\n".join(texts), branch=branch, actor=texts[2])
    work = told.begin(number)
    for text in texts[3:11]:
        work.step(text.replace("\n", " "), f"{text}\n", seconds=0.1)
    body = messages.JobFinished(
        fence=work.attempt.fence,
        at=told.wait(0.1),
        state="failed",
        code="exit",
        sentence=texts[11],
        exit_code=1,
        images=(pushed("c"),) if index == 0 else (),
        log_bytes=work.offset,
    )
    told.report(work.agent, body)
    return number


def _warn(told: Story) -> None:
    columns = {
        "hello": {"version": CORPUS[0], "warnings": list(CORPUS)},
        "labels": list(CORPUS[:20]),
        "capabilities": [CORPUS[1]],
        "connected": False,
        "offline_why": CORPUS[2],
    }
    told.write(lambda tx: agents.change(tx.conn, told.agent_ids["local"], **columns))


def _point_elsewhere(told: Story) -> None:
    place = told.project().id
    for name, url in (
        ("dev", "javascript:alert(1)//https://x.example"),
        ("test", 'https://x.example/"><script>alert(1)</script>'),
    ):
        told.write(lambda tx, name=name, url=url: environments.put(tx.conn, place, name, told.now, {"url": url}))
    told.write(
        lambda tx: environments.put(
            tx.conn, place, "production", told.now, {"locked_by": CORPUS[0], "locked_why": CORPUS[1]}
        )
    )
    told.write(
        lambda tx: environments.put(tx.conn, place, "production", told.now, {"locked_by": None, "locked_why": None})
    )


def _fail_a_promote(told: Story) -> int:
    number = story.promote(told, "3", outcome="", by=CORPUS[0])
    told.deploy(number, "failed", sentence=CORPUS[3])
    return number
