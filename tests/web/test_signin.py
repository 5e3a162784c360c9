"""Setting up, signing in and out, and what guessing gets."""

from __future__ import annotations

import stat
import time

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from keepflow import errors
from keepflow.crypto import tokens
from keepflow.engine import people as rules
from keepflow.engine import signin
from keepflow.engine.signin import Tries
from keepflow.store import events, people
from tests.web import story as stories
from tests.web.conftest import browser, web_app
from tests.web.story import HOUR, PASSWORD, SECOND, Story

OURS = {"Origin": "http://localhost"}


def _setup_link(story: Story) -> str:
    link = story.write(lambda tx: signin.make_setup_link(tx, story.master, story.now))
    return link.removeprefix("http://localhost")


def _login(client: FlaskClient, name: str, password: str, **more: str) -> TestResponse:
    return client.post("/login", headers=OURS, data={"name": name, "password": password, **more})


def test_the_setup_link_makes_the_first_admin_once(empty: Story) -> None:
    client, link = web_app(empty).test_client(), _setup_link(empty)
    assert "first admin" in client.get(link).text
    form = {"name": "root", "password": PASSWORD, "again": PASSWORD}
    answer = client.post(link, headers=OURS, data=form)
    assert (answer.status_code, answer.location) == (303, "/")
    assert client.get("/api/v1/whoami").json == {"name": "root", "admin": True, "scopes": ["admin"]}
    assert client.get(link).status_code == 404
    assert client.post(link, headers=OURS, data={**form, "name": "other"}).status_code == 404


def test_every_start_before_setup_prints_a_link_and_the_first_one_used_ends_them_all(empty: Story) -> None:
    client, earlier, later = web_app(empty).test_client(), _setup_link(empty), _setup_link(empty)
    form = {"name": "root", "password": PASSWORD, "again": PASSWORD}
    assert client.post(earlier, headers=OURS, data=form).status_code == 303
    assert client.get(later).status_code == 404
    with pytest.raises(errors.Refused, match="set up"):
        _setup_link(empty)


def test_a_link_dies_after_a_day(empty: Story) -> None:
    client, link = web_app(empty).test_client(), _setup_link(empty)
    empty.now += 24 * HOUR
    assert client.get(link).status_code == 404


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"name": "root", "password": "short", "again": "short"}, "at least 12"),
        ({"name": "root", "password": PASSWORD, "again": "other"}, "differ"),
        ({"name": "Root!", "password": PASSWORD, "again": PASSWORD}, "user name"),
        ({"name": "local-admin", "password": PASSWORD, "again": PASSWORD}, "reserved"),
        ({"name": "root", "password": "password1234", "again": "password1234"}, "first passwords anybody"),
    ],
)
def test_a_form_that_will_not_do_leaves_the_link_alive(form: dict[str, str], said: str, empty: Story) -> None:
    client, link = web_app(empty).test_client(), _setup_link(empty)
    answer = client.post(link, headers=OURS, data=form)
    assert (answer.status_code, said in answer.text) == (400, True)
    assert client.get(link).status_code == 200


def test_a_password_link_sets_the_password_and_ends_every_session(story: Story) -> None:
    client = browser(web_app(story), story, "bo")
    with story.master.database.read() as conn:
        user = rules.existing_user(conn, "bo")
    made = [story.write(lambda tx: signin.make_password_link(tx, story.master, user, "root", story.now)) for _ in "ab"]
    earlier, later = (link.removeprefix("http://localhost") for link in made)
    other = web_app(story).test_client()
    assert other.get(earlier).status_code == 404, "only the newest link works"
    form = {"name": "root", "password": "another fine phrase", "again": "another fine phrase"}
    assert other.post(later, headers=OURS, data=form).status_code == 303
    assert other.get("/api/v1/whoami").json["name"] == "bo", "the name in the form changes nobody else"
    assert client.get("/agents").status_code == 303
    assert _login(client, "bo", PASSWORD).status_code == 401
    assert _login(client, "bo", "another fine phrase").status_code == 303


def test_signing_in_goes_where_one_was_going_and_nowhere_else(app_client: FlaskClient) -> None:
    assert app_client.get("/projects/keepwork").location == "/login?next=/projects/keepwork"
    assert _login(app_client, "bo", PASSWORD, next="/projects/keepwork").location == "/projects/keepwork"
    for elsewhere in (
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/\n/evil",
        "",
    ):
        assert _login(app_client, "bo", PASSWORD, next=elsewhere).location == "/"


def test_a_page_whose_session_ended_sends_itself_to_sign_in_not_its_parts(app_client: FlaskClient) -> None:
    here = {"HX-Request": "true", "HX-Current-URL": "http://localhost/runs?state=failed"}
    answer = app_client.get("/agents/now", headers=here)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/login?next=/runs%3Fstate%3Dfailed")
    evil = {"HX-Request": "true", "HX-Current-URL": "https://evil.example//evil.example/x"}
    assert app_client.get("/agents/now", headers=evil).headers["HX-Redirect"] == "/login?next=//evil.example/x"
    assert 'name="next" value="/"' in app_client.get("/login?next=//evil.example/x").text


@pytest.fixture
def app_client(story: Story) -> FlaskClient:
    """A client nobody is signed in with."""
    return web_app(story).test_client()


def test_the_cookie_cannot_be_read_by_scripts_or_sent_by_other_sites(app_client: FlaskClient) -> None:
    cookie = _login(app_client, "bo", PASSWORD).headers["Set-Cookie"]
    assert cookie.startswith("kf=")
    assert {"HttpOnly", "Path=/", "SameSite=Lax"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


def test_on_https_the_cookie_is_bound_to_this_host(tmp_path: stories.Path) -> None:
    with stories.open_master(tmp_path / "home", "https://ci.example.org") as master:
        story = Story(master)
        story.user("root", admin=True)
        client = web_app(story).test_client()
        headers = {"Host": "ci.example.org", "Origin": "https://ci.example.org"}
        answer = client.post("/login", headers=headers, data={"name": "root", "password": PASSWORD})
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith("__Host-kf=")
        assert {"HttpOnly", "Path=/", "SameSite=Lax", "Secure"} <= set(cookie.split("; "))
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        weak = web_app(story).test_client()
        weak.set_cookie("kf", cookie.partition("=")[2].partition(";")[0])
        assert weak.get("/agents", headers={"Host": "ci.example.org"}).status_code == 303, "the weak name is not read"


def test_signing_out_kills_the_session_itself(story: Story) -> None:
    app = web_app(story)
    client = app.test_client()
    _login(client, "bo", PASSWORD)
    cookie = client.get_cookie("kf")
    assert cookie is not None
    page = client.get("/agents").text
    token = page.partition('name="csrf_token" value="')[2].partition('"')[0]
    assert client.post("/logout", headers=OURS, data={"csrf_token": token}).location == "/login"
    thief = app.test_client()
    thief.set_cookie("kf", cookie.value)
    assert thief.get("/agents").status_code == 303


def test_signing_in_again_makes_a_new_session(app_client: FlaskClient) -> None:
    cookies = []
    for _ in range(2):
        _login(app_client, "bo", PASSWORD)
        cookie = app_client.get_cookie("kf")
        assert cookie is not None
        cookies.append(cookie.value)
    assert cookies[0] != cookies[1]
    assert all(len(cookie) >= 43 for cookie in cookies)


def test_disabling_a_person_ends_what_they_hold_at_once(story: Story) -> None:
    client = browser(web_app(story), story, "bo")
    story.write(lambda tx: rules.set_disabled(tx, "bo", True, "root", story.now))
    assert client.get("/agents").status_code == 303
    assert _login(client, "bo", PASSWORD).status_code == 401


@pytest.mark.parametrize("name", ["bo", "nobody-here", "' OR 1=1 --", "\x00", "local-admin"])
def test_a_wrong_name_or_password_gets_one_answer(name: str, app_client: FlaskClient) -> None:
    answer = _login(app_client, name, "wrong password")
    assert answer.status_code == 401
    assert "this name and password do not fit" in answer.text


def test_an_unknown_name_takes_as_long_as_a_wrong_password(story: Story) -> None:
    gate = signin.SignIn(story.master)

    def seconds(name: str) -> float:
        started = time.process_time()
        with pytest.raises(errors.AuthError):
            gate.login(name, "wrong", "10.0.0.1", story.wait(61))
        return time.process_time() - started

    known = min(seconds("bo") for _ in range(3))
    unknown = min(seconds("nobody-here") for _ in range(3))
    assert unknown > known / 2, "an unknown name must cost a hash too"


def test_guessing_one_account_stops_after_ten_tries_a_minute_from_anywhere(story: Story) -> None:
    gate, hashed, waits = signin.SignIn(story.master), 0, set[int]()
    for guess in range(50):
        try:
            gate.login("bo", f"guess {guess}", f"10.0.{guess}.1", story.now)
        except errors.TooMany as error:
            waits.add(error.wait)
        except errors.AuthError:
            hashed += 1
    assert (hashed, waits) == (Tries.LIMIT, {60})
    story.wait(61)
    assert gate.login("bo", PASSWORD, "10.0.0.1", story.now)


def test_guessing_from_one_address_stops_after_ten_tries_a_minute_whatever_the_name(story: Story) -> None:
    gate, hashed = signin.SignIn(story.master), 0
    for guess in range(50):
        try:
            gate.login(f"user{guess}", "guess", "10.0.0.1", story.now)
        except errors.TooMany:
            continue
        except errors.AuthError:
            hashed += 1
    assert hashed == Tries.LIMIT


def test_too_many_tries_are_told_how_long_to_wait(app_client: FlaskClient) -> None:
    for _ in range(Tries.LIMIT):
        _login(app_client, "bo", "wrong")
    answer = _login(app_client, "bo", PASSWORD)
    assert (answer.status_code, "too many tries" in answer.text) == (429, True)


def test_the_limiter_forgets_old_keys() -> None:
    tries = Tries()
    for number in range(10_050):
        tries.note(f"address {number}", number * SECOND)
    assert len(tries._seen) < 200


def test_who_came_and_who_failed_is_written_down_without_what_was_typed(app_client: FlaskClient, story: Story) -> None:
    with story.master.database.read() as conn:
        before = events.last_id(conn)
    _login(app_client, "my secret password", "x")
    _login(app_client, "bo", "another secret")
    _login(app_client, "bo", PASSWORD)
    with story.master.database.read() as conn:
        found = events.since(conn, before, 10)
    assert [(event.kind, event.actor, event.data) for event in found] == [
        ("sign-in-failed", "", {"user": None, "from": "127.0.0.1"}),
        ("sign-in-failed", "", {"user": "bo", "from": "127.0.0.1"}),
        ("signed-in", "bo", {}),
    ]


# --- the same machine ------------------------------------------------------------------------------------------------


def test_the_token_file_opens_everything_and_stays_the_same_over_restarts(story: Story) -> None:
    path = rules.install_admin_token(story.master)
    token = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert rules.install_admin_token(story.master).read_text().strip() == token
    client = web_app(story).test_client()
    answer = client.get("/api/v1/whoami", headers={"Authorization": f"Bearer {token}"})
    assert answer.json == {"name": "local-admin", "admin": True, "scopes": ["admin"]}


def test_a_broken_token_file_is_made_anew_and_the_old_token_is_dead(story: Story) -> None:
    path = rules.install_admin_token(story.master)
    old = path.read_text().strip()
    path.write_text("garbage")
    new = rules.install_admin_token(story.master).read_text().strip()
    with story.master.database.read() as conn:
        assert rules.token_user(conn, old, story.now) is None
        assert rules.token_user(conn, new, story.now) == (rules.LOCAL_ADMIN, ("admin",))
        assert rules.token_user(conn, tokens.new("admin"), story.now) is None


def test_nobody_can_take_the_name_of_the_local_admin(story: Story) -> None:
    with pytest.raises(errors.UsageError, match="reserved"):
        story.user("local-admin")
    with story.master.database.read() as conn:
        assert people.user_by_name(conn, "local-admin") is None
