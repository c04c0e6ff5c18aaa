"""Who is let in: with the token or its cookie, under the server's own names; and changes from the page only."""

from __future__ import annotations

import pytest

from covey.ui.guard import ACTION, Secrets

ORIGIN = "http://127.0.0.1:7480"


def test_the_token_is_exchanged_for_a_cookie_that_scripts_and_other_sites_cannot_have(stranger, secrets):
    answer = stranger.get("/", params={"token": secrets.token})
    assert (answer.status_code, 'content="0; url=/"' in answer.text) == (200, True)
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith("covey-ui-7480=")
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert secrets.token not in answer.headers["set-cookie"]
    assert stranger.get("/").status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/status", "/api/runs", "/static/app.js", "/nothing"])
def test_without_it_nothing_is_shown(stranger, path):
    answer = stranger.get(path)
    assert (answer.status_code, "covey ui" in answer.text) == (401, True)


def test_a_wrong_token_or_cookie_is_refused(stranger, secrets):
    assert stranger.get("/", params={"token": secrets.token[:-1]}).status_code == 403
    assert stranger.get("/", params={"token": ""}).status_code == 403
    assert stranger.get("/", headers={"cookie": f"covey-ui-7480={secrets.token}"}).status_code == 401
    assert stranger.get("/", headers={"cookie": "covey-ui-7480=é".encode()}).status_code == 401
    assert stranger.get("/api/runs", params={"token": secrets.token}).status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example:7480", "127.0.0.1", "127.0.0.1:7481", "localhost.evil.example:7480", "[::1]:7480", ""]
)
def test_under_another_name_nothing_is_shown(client, host):
    assert client.get("/", headers={"host": host}).status_code == 421


def test_under_both_of_its_names_it_answers(client):
    assert client.get("/", headers={"host": "127.0.0.1:7480"}).status_code == 200
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    assert client.get("/", headers={"host": "localhost:7480", "cookie": cookies}).status_code == 200


def changing(secrets: Secrets, **others: str) -> dict[str, str]:
    wanted = {"origin": ORIGIN, ACTION: secrets.action, "sec-fetch-site": "same-origin", **others}
    return {name: value for name, value in wanted.items() if value}


@pytest.mark.parametrize(
    "others",
    [
        {"origin": ""},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "https://127.0.0.1:7480"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site"},
        {ACTION: ""},
        {ACTION: "guessed"},
    ],
)
def test_changes_come_from_the_page_only(client, secrets, others, recorder):
    recorder.run("first")
    answer = client.post("/api/runs/first/stop", headers=changing(secrets, **others))
    assert answer.status_code == 403
    assert client.get("/api/runs/first").json()["run"]["state"] == "interrupted"


def test_from_the_page_they_reach_the_coordinator(client, secrets, recorder):
    recorder.run("first")
    answer = client.post("/api/runs/first/stop", headers=changing(secrets))
    assert (answer.status_code, answer.json()["away"]) == (503, True)
    assert "no coordinator is running" in answer.json()["error"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(client, method):
    assert client.request(method, "/api/runs").status_code == 405


@pytest.mark.parametrize("path", ["/api/runs/first/stop", "/api/runs/first/continue", "/api/evict", "/api/submit"])
def test_reading_an_address_changes_nothing(client, path):
    assert client.get(path).status_code == 405


def test_every_answer_says_what_the_browser_may_do(client, stranger):
    for path in ("/", "/static/app.js", "/api/status", "/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers


def test_secrets_are_not_shown():
    known = Secrets()
    assert len({known.token, known.session, known.action, Secrets().token}) == 4
    assert known.token not in repr(known)
