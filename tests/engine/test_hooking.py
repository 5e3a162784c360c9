"""Webhooks that keepflow keeps at forges, against forges that behave as they document it (R11, R75)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from keepflow.core.webhooks import FoundHook, Mending, mending
from keepflow.engine import apply as applying
from keepflow.engine import hooking
from keepflow.engine.hooking import HookKeeper
from keepflow.errors import Refused, UsageError
from keepflow.store import events, forge_hooks, projects
from keepflow.store.forge_hooks import ForgeHook
from keepflow.store.projects import hook_secret_place
from keepflow.wire.desired import Desired, DesiredApi
from tests.engine.world import World
from tests.forges.deliveries import headers, payload
from tests.forges.served import TOKEN, ServedForge, served_forge
from tests.real.waiting import wait_until
from tests.tools import repositories

ADDRESS = "http://127.0.0.1:8080/hooks/keepwork"
every_kind = pytest.mark.parametrize("forge", ["github", "gitlab", "gitea"], indirect=True)
FOREVER = 2**62


@pytest.fixture
def forge(request: pytest.FixtureRequest) -> Iterator[ServedForge]:
    with served_forge(getattr(request, "param", "github")) as made:
        yield made


def desired(forge: ServedForge, **more: Any) -> Desired:
    """Return the server file that wants the hook of keepwork at this forge."""
    how = {"api": forge.api, "token": TOKEN, "private": True, **more.pop("hook", {})}
    repo = more.pop("repo", "https://git.example.org/team/keepwork.git")
    wanted = {"repo": repo, "forge": forge.kind, "flow_file": ".keepflow.yml", "hook": how, **more}
    return Desired.model_validate({"projects": {"keepwork": wanted}})


def apply(world: World, wanted: Desired) -> None:
    """Apply a server file; nobody is asked yet."""
    world.call(lambda tx: applying.apply(tx, world.master, wanted, "root", world.tick()))


def tend(world: World, now: int = FOREVER) -> list[ForgeHook]:
    """Ask every forge that is due by then, and return how the hooks stand."""
    hooking.tend(world.master, now)
    with world.read() as conn:
        return forge_hooks.every(conn)


def secret(world: World) -> bytes:
    """Return what deliveries of keepwork must be signed with."""
    project = world.find_project("keepwork")
    assert project.hook_secret is not None
    return world.master.vault.unseal(project.hook_secret, hook_secret_place("keepwork"))


def told(world: World, *kinds: str) -> list[str]:
    """Return the kinds of events so far, of those kinds."""
    with world.read() as conn:
        return [event.kind for event in events.since(conn, 0, 1000) if event.kind in kinds]


@every_kind
def test_r11_the_hook_is_made_and_what_the_forge_signs_with_it_is_believed(world: World, forge: ServedForge) -> None:
    apply(world, desired(forge))
    [hook] = tend(world)
    assert (hook.state, hook.said, forge.urls()) == ("kept", "", [ADDRESS])
    [given] = forge.secrets.values()
    assert len(given) >= 32
    assert given.encode() == secret(world)
    body = json.dumps(payload("push", forge.kind)).encode()
    signed = {"x-gitlab-token": given}
    if forge.kind != "gitlab":
        signed = headers("push", body, given.encode(), forge=forge.kind)
    else:
        assert forge.hooks[11]["enable_ssl_verification"] is True
    world.master.forges[forge.kind].verify(signed, body, secret(world))
    assert told(world, "hook-kept") == ["hook-kept"]


@every_kind
def test_r11_a_second_look_changes_nothing(world: World, forge: ServedForge) -> None:
    apply(world, desired(forge))
    tend(world)
    made, given = dict(forge.hooks), secret(world)
    apply(world, desired(forge))
    tend(world)
    assert forge.hooks == made
    assert secret(world) == given, "a secret that was made once stays"
    assert [method for method, _ in forge.calls].count("POST") == 1
    assert told(world, "hook-kept") == ["hook-kept"]


@every_kind
def test_r11_one_that_somebody_made_by_hand_is_found_and_mended(world: World, forge: ServedForge) -> None:
    body = {"url": ADDRESS, "push_events": True, "token": "typed"}
    if forge.kind != "gitlab":
        config = {"url": ADDRESS, "content_type": "form", "secret": "typed"}
        body = {"type": "gitea", "active": False, "events": ["push"], "config": config}
    by_hand = forge.add(body)
    other = forge.add({**body, "url": "https://else.example.org", "config": {"url": "https://else.example.org"}})
    apply(world, desired(forge))
    [hook] = tend(world)
    assert hook.state == "kept"
    ours = [number for number, url in zip(forge.hooks, forge.urls(), strict=True) if url == ADDRESS]
    assert len(ours) == 1, "exactly one tells us"
    assert (ours == [by_hand]) == (forge.kind != "gitea"), "Gitea changes no secret, so another one took its place"
    assert forge.secrets[ours[0]].encode() == secret(world)
    assert other in forge.hooks, "nobody else's is touched"


@every_kind
def test_r11_one_that_a_person_removed_or_turned_off_is_there_again(world: World, forge: ServedForge) -> None:
    apply(world, desired(forge))
    tend(world)
    forge.delete_by_hand()
    [hook] = tend(world)
    assert (hook.state, forge.urls()) == ("kept", [ADDRESS])
    [number] = forge.hooks
    forge.hooks[number] |= {"alert_status": "disabled"} if forge.kind == "gitlab" else {"active": False}
    tend(world)
    [mended] = forge.hooks.values()
    assert mended.get("active", True) is True
    assert mended.get("alert_status", "executable") == "executable"
    assert forge.secrets[mended["id"]].encode() == secret(world)


@every_kind
def test_r11_a_new_address_or_secret_reaches_the_hook(world: World, forge: ServedForge) -> None:
    apply(world, desired(forge))
    tend(world)
    apply(world, desired(forge, hook_secret="one-that-a-person-chose"))
    tend(world, now=0)  # by nothing but the difference
    [number] = forge.hooks
    assert forge.secrets[number] == "one-that-a-person-chose"
    assert forge.urls() == [ADDRESS]


@every_kind
def test_r11_a_hook_beyond_the_first_page_is_found(world: World, forge: ServedForge) -> None:
    for number in range(70):
        url = f"https://{number}.example.org"
        forge.add({"url": url, "type": "gitea", "active": True, "events": ["push"], "config": {"url": url}})
    apply(world, desired(forge))
    tend(world)
    tend(world)
    assert forge.urls().count(ADDRESS) == 1


@every_kind
@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"message": "Bad credentials"}, ("answered 401: Bad credentials", "it needs")),
        (403, {"message": "Resource not accessible"}, ("answered 403: Resource not accessible", "it needs")),
        (404, {"message": "Not Found"}, ("answered 404: Not Found", "it needs")),
        (
            422,
            {"message": "Validation Failed", "errors": [{"message": "url is not allowed"}]},
            ("Validation Failed: url is not allowed", "local networks"),
        ),
        (422, {"error": f"no {TOKEN} here"}, ("no *** here",)),
        (422, {"error": "x" * 290 + TOKEN}, ("x" * 290 + "***",)),
        (500, None, ("answered 500", "asked again")),
        (302, None, ("no redirect is followed",)),
    ],
)
def test_r11_a_refusal_is_told_with_the_forges_own_words_and_what_helps(
    world: World, forge: ServedForge, status: int, body: Any, words: tuple[str, ...]
) -> None:
    apply(world, desired(forge))
    forge.refuse = [(status, body)]
    [hook] = tend(world)
    assert hook.state == "failed"
    assert all(word in hook.said for word in words), hook.said
    assert TOKEN not in hook.said
    assert hook.next_at is not None
    assert told(world, "hook-failed") == ["hook-failed"]
    [hook] = tend(world)
    assert (hook.state, forge.urls()) == ("kept", [ADDRESS]), "it is tried again by itself"


@every_kind
@pytest.mark.parametrize("answer", [{"a": 1}, [1], [{"id": "../../x"}], [{"id": True}], "text"])
def test_r11_an_answer_that_is_none_is_a_failure_in_words(world: World, forge: ServedForge, answer: Any) -> None:
    apply(world, desired(forge))
    forge.refuse = [(200, answer)]
    [hook] = tend(world)
    assert hook.state == "failed"
    assert hook.said
    assert [method for method, _ in forge.calls] == ["GET"], "nothing is written where nothing was understood"


def test_r11_the_token_goes_in_a_header_and_nowhere_else(world: World, forge: ServedForge) -> None:
    apply(world, desired(forge))
    [hook] = tend(world)
    assert all(TOKEN in sent["authorization"] for sent in forge.headers)
    assert not any(TOKEN in target for _, target in forge.calls)
    assert TOKEN not in repr(hook)
    with world.read() as conn:
        rows = conn.connection.driver_connection.iterdump() if "sqlite" in str(conn.engine.url) else []
        assert not any(TOKEN in row for row in rows)


def test_p13_no_secret_of_a_hook_lies_open_or_comes_back_in_the_words_of_a_forge(
    world: World, forge: ServedForge
) -> None:
    apply(world, desired(forge, hook_secret="c4nary-of-a-hook"))
    forge.refuse = [(200, []), (422, {"message": "no c4nary-of-a-hook please"})]
    [hook] = tend(world)
    assert "answered 422: no *** please" in hook.said
    tend(world)
    assert list(forge.secrets.values()) == ["c4nary-of-a-hook"]
    world.close()
    found = [path for path in world.home.rglob("*") if path.is_file() and b"c4nary-of-a-hook" in path.read_bytes()]
    assert found == []


def test_r11_only_the_addresses_that_may_be_asked_are(world: World, forge: ServedForge) -> None:
    apply(world, desired(forge, hook={"private": False}))
    [hook] = tend(world)
    assert "https only" in hook.said or "set `url:`" in hook.said
    for api in ("http://169.254.169.254/latest", "http://[fe80::1]/", "http://100.100.100.200/"):
        apply(world, desired(forge, hook={"api": api}))
        told_of = [one for one in tend(world) if one.wanted]
        assert "where nothing is ever sent to" in told_of[0].said
    assert not forge.calls


def test_r11_a_forge_that_is_away_keeps_nobody_else_waiting(world: World, forge: ServedForge) -> None:
    gone = {"api": "http://127.0.0.1:1/api", "token": TOKEN, "private": True}
    other = desired(forge).projects["keepwork"]
    away = other.model_copy(update={"hook": DesiredApi(**gone)})
    apply(world, Desired(projects={"away": away, "away-too": away, "keepwork": other}))
    found = {hook.project: hook for hook in tend(world)}
    assert "cannot connect to 127.0.0.1:1" in found["away"].said
    assert found["away-too"].state == "due", "one try is enough to know that a forge is away"
    assert found["keepwork"].state == "kept"


def test_r11_a_gitlab_signing_token_is_left_to_a_person(world: World) -> None:
    with served_forge("gitlab") as forge:
        apply(world, desired(forge, hook_secret="whsec_bm90IGEgc2VjcmV0"))
        [hook] = tend(world)
        assert "only a person sets a signing token" in hook.said
        assert forge.hooks == {}


@pytest.mark.parametrize(("kind", "repo"), [("bare", "https://h/x.git"), ("github", "/srv/git/x.git")])
def test_r11_a_hook_that_no_api_makes_is_refused_before_anything_is_applied(
    world: World, forge: ServedForge, kind: str, repo: str
) -> None:
    forge.kind = kind
    wanted = desired(forge, repo=repo)
    with pytest.raises(UsageError, match="keepflow hook show"):
        apply(world, wanted)


def test_r11_what_the_sweep_had_to_find_has_the_hook_looked_at(world: World, forge: ServedForge) -> None:
    apply(world, desired(forge))
    [hook] = tend(world)
    forge.delete_by_hand()
    world.call(lambda tx: hooking.suspect(tx, world.master, hook.project_id, world.tick()))
    [hook] = tend(world, now=world.tick())
    assert forge.urls() == [ADDRESS]


def test_r11_the_keeper_does_it_by_itself_when_a_file_is_applied(world: World, forge: ServedForge) -> None:
    keeper = HookKeeper(world.master)
    keeper.start()
    try:
        apply(world, desired(forge))
        wait_until(lambda: forge.urls() == [ADDRESS], 20, "the making of the hook")
        apply(world, Desired())
        wait_until(lambda: forge.urls() == [], 20, "the removal of the hook")
    finally:
        keeper.stop(5)


@every_kind
def test_r75_removing_a_project_removes_its_hook_and_only_that(world: World, forge: ServedForge) -> None:
    apply(world, desired(forge))
    tend(world)
    url = "https://else.example.org"
    other = forge.add({"url": url, "type": "gitea", "active": True, "events": ["push"], "config": {"url": url}})
    apply(world, Desired())
    assert tend(world) == []
    assert list(forge.hooks) == [other]
    assert told(world, "hook-removed") == ["hook-removed"]
    with world.read() as conn:
        assert projects.by_name(conn, "keepwork") is None


@every_kind
def test_r75_a_forge_that_is_away_leaves_nothing_half_deleted(world: World, forge: ServedForge) -> None:
    apply(world, desired(forge))
    tend(world)
    apply(world, Desired())
    forge.refuse = [(503, None)]
    [hook] = tend(world)
    assert (hook.state, hook.wanted) == ("left", False)
    assert "answered 503" in hook.said
    assert ADDRESS in hook.said, "what is to be removed by hand"
    assert "team/keepwork: Settings, Webhooks" in hook.said, "and where"
    assert forge.urls() == [ADDRESS]
    with world.read() as conn:
        assert projects.by_name(conn, "keepwork") is None, "the project is gone nevertheless"
    assert tend(world) == [], "and it is tried again until it is done"
    assert forge.hooks == {}


def test_r75_a_project_that_comes_back_keeps_its_hook(world: World, forge: ServedForge) -> None:
    apply(world, desired(forge))
    tend(world)
    apply(world, Desired())
    apply(world, desired(forge))
    [hook] = tend(world)
    assert (hook.wanted, hook.state, forge.urls()) == (True, "kept", [ADDRESS])
    [number] = forge.hooks
    assert forge.secrets[number].encode() == secret(world)


def test_r75_another_repository_gets_a_hook_and_the_one_before_loses_it(world: World, forge: ServedForge) -> None:
    with served_forge("gitea") as new:
        apply(world, desired(forge))
        tend(world)
        apply(world, desired(new))
        [hook] = tend(world)
        assert (hook.forge, new.urls(), forge.urls()) == ("gitea", [ADDRESS], [])


def test_r75_a_hook_that_a_person_removed_may_be_forgotten_and_a_wanted_one_may_not(
    world: World, forge: ServedForge
) -> None:
    apply(world, desired(forge))
    [hook] = tend(world)
    with pytest.raises(Refused, match="wants its hook"):
        world.call(lambda tx: hooking.forget(tx, hook, "root", world.tick()))
    apply(world, Desired())
    with world.read() as conn:
        [hook] = forge_hooks.every(conn)
    world.call(lambda tx: hooking.forget(tx, hook, "root", world.tick()))
    assert tend(world) == []


def test_a_file_without_a_hook_asks_no_forge_and_its_plan_shows_no_secret(world: World, forge: ServedForge) -> None:
    bare = repositories.bare(world.home / "x.git")
    plain = {"repo": str(bare), "forge": "bare", "flow_file": ".keepflow.yml", "hook_secret": "typed"}
    apply(world, Desired.model_validate({"projects": {"keepwork": plain}}))
    assert tend(world) == []
    with world.read() as conn:
        lines = applying.plan(conn, world.master, desired(forge))
    assert "hook is new" in lines[0].detail
    assert TOKEN not in repr(lines)


FITS = FoundHook("7", ADDRESS, fits=True)


@pytest.mark.parametrize(
    ("found", "remembered", "known", "keeps_secret", "wanted"),
    [
        ([], None, False, False, (Mending(make=True), None)),
        ([], "7", True, False, (Mending(make=True), None)),
        ([FITS], "7", True, False, (Mending(), "7")),
        ([FITS], "7", True, True, (Mending(), "7")),
        ([FITS], None, False, False, (Mending(change="7"), "7")),
        ([FITS], "9", True, False, (Mending(change="7"), "7")),
        ([FITS], None, False, True, (Mending(make=True, remove=("7",)), None)),
        ([FoundHook("7", "https://old", fits=True)], "7", True, False, (Mending(change="7"), "7")),
        ([FITS, FoundHook("8", ADDRESS, fits=True)], "8", True, False, (Mending(remove=("7",)), "8")),
        ([FoundHook("7", ADDRESS, True, dead=True)], "7", True, False, (Mending(make=True, remove=("7",)), None)),
        ([FoundHook("7", "https://else", fits=True)], None, False, False, (Mending(make=True), None)),
    ],
)
def test_what_is_to_be_done_about_the_hooks_that_are_there(
    found: list[FoundHook], remembered: str | None, known: bool, keeps_secret: bool, wanted: tuple[Mending, str | None]
) -> None:
    assert mending(found, ADDRESS, remembered, known, keeps_secret) == wanted
