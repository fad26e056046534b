"""An OSR's Keystone on a copy of the AR's database: what it answers by itself, what it sends on, how far it lags."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import pytest
import requests

from mrkolla.check import CloudView, RegionView, check
from tests.integration import keystone_places as made
from tests.integration.middleware_cloud import ADMIN, PASSWORD

pytestmark = [pytest.mark.root]


@pytest.fixture(scope="module")
def cloud(kolla):
    with made.replica(kolla) as running:
        yield running


@pytest.fixture(autouse=True)
def from_the_osr(cloud):
    """What a test asks, it asks from OSR1."""
    with made.entered("OSR1"):
        yield


def login(cloud, region: str, user: str = "admin", password: str = PASSWORD, project: str = "admin"):
    """The answer to who logs in at the Keystone of ``region``."""
    domain = {"id": "default"}
    who = {"name": user, "domain": domain, "password": password}
    body = {
        "identity": {"methods": ["password"], "password": {"user": who}},
        "scope": {"project": {"name": project, "domain": domain}},
    }
    return requests.post(f"{cloud.url(region)}/v3/auth/tokens", json={"auth": body}, timeout=30)


def token(cloud, region: str, *who: str) -> str:
    answer = login(cloud, region, *who)
    assert answer.status_code == 201, answer.text
    return answer.headers["X-Subject-Token"]


def validated(cloud, region: str, subject: str, by: str | None = None) -> int:
    """The status of validating the token ``subject`` at the Keystone of ``region``."""
    headers = {"X-Auth-Token": by or subject, "X-Subject-Token": subject}
    return requests.get(f"{cloud.url(region)}/v3/auth/tokens", headers=headers, timeout=30).status_code


def new_user(cloud, by: str, region: str = "AR") -> tuple[str, str]:
    """A user made by way of ``region`` who may log in to the project admin; the id, the name."""
    name, headers = f"u{uuid.uuid4().hex[:8]}", {"X-Auth-Token": by}
    url = f"{cloud.url(region)}/v3"
    user = {"name": name, "password": PASSWORD, "domain_id": "default"}
    made_user = requests.post(f"{url}/users", json={"user": user}, headers=headers, timeout=30)
    assert made_user.status_code == 201, made_user.text
    key = made_user.json()["user"]["id"]

    def first(kind: str, name: str) -> str:
        return requests.get(f"{url}/{kind}?name={name}", headers=headers, timeout=30).json()[kind][0]["id"]

    grant = f"{url}/projects/{first('projects', 'admin')}/users/{key}/roles/{first('roles', 'admin')}"
    assert requests.put(grant, headers=headers, timeout=30).status_code == 204
    return key, name


def until(wanted: object, found: Callable[[], object], patience_s: float = 30) -> float:
    """Wait until ``found()`` is ``wanted``; how long that took, s."""
    began = time.monotonic()
    while (last := found()) != wanted:
        assert time.monotonic() - began < patience_s, f"still {last} after {patience_s} s"
        time.sleep(0.01)
    return time.monotonic() - began


def test_each_keystone_takes_the_others_tokens_and_the_check_sees_it(cloud):
    for one, other in (("AR", "OSR1"), ("OSR1", "AR")):
        assert validated(cloud, other, token(cloud, one)) == 200
    vips = {name: made.region(name).vip for name in ("AR", "OSR1")}
    regions = [RegionView("AR", "AR", vips["AR"]), RegionView("OSR1", "OSR", vips["OSR1"], keystone=cloud.url("OSR1"))]
    report = check(CloudView(regions, cloud.url("AR"), ADMIN, settle_s=10), parts=["endpoints", "keystone"])
    assert report.findings == []
    assert [fact[:2] for fact in report.facts] == [("OSR1", "a change at the admin region is seen after")]


def test_the_copy_answers_while_the_ar_is_cut_off_and_says_clearly_what_it_cannot(cloud):
    known = token(cloud, "AR")
    key, name = new_user(cloud, known)
    until(201, lambda: login(cloud, "OSR1", name).status_code)
    with cloud.cut():
        assert validated(cloud, "OSR1", token(cloud, "OSR1", name)) == 200
        assert validated(cloud, "OSR1", known) == 200
        began = time.monotonic()
        project = {"project": {"name": "never", "domain_id": "default"}}
        headers = {"X-Auth-Token": token(cloud, "OSR1")}
        refused = requests.post(f"{cloud.url('OSR1')}/v3/projects", json=project, headers=headers, timeout=60)
        first_s = time.monotonic() - began
        assert refused.status_code in (503, 504), refused.text
        assert "admin region's Keystone" in refused.json()["error"]["message"]
        # Once HAProxy has seen that nobody answers, it does not try to connect any more.
        time.sleep(12)
        began = time.monotonic()
        again = requests.delete(f"{cloud.url('OSR1')}/v3/users/{key}", headers=headers, timeout=60)
        assert again.status_code == 503 and time.monotonic() - began < max(first_s, 3)
        # A login that fails is counted, in the copy alone, and ends as it does at the AR.
        assert login(cloud, "OSR1", name, "wrong").status_code == 401
        assert login(cloud, "OSR1", name).status_code == 201
        print(f"refused after {first_s:.1f} s, then at once")
    # What is asked of the AR works again, and the copy follows.
    back_s = until(201, lambda: login(cloud, "AR").status_code)
    by = token(cloud, "AR")
    _, late = new_user(cloud, by)
    follows_s = until(201, lambda: login(cloud, "OSR1", late).status_code, 90)

    def sent_on() -> int:
        body = {"project": {"name": f"p{uuid.uuid4().hex[:8]}", "domain_id": "default"}}
        headers = {"X-Auth-Token": by}
        return requests.post(f"{cloud.url('OSR1')}/v3/projects", json=body, headers=headers, timeout=60).status_code

    # OSR1's HAProxy sends on what writes once its own checks have seen the AR's Keystone again, not before.
    writes_s = until(201, sent_on, 90)
    print(
        f"the AR answered after {back_s:.1f} s, the copy followed after {follows_s:.1f} s, wrote {writes_s:.1f} s later"
    )


def test_what_writes_goes_to_the_ar_and_comes_back_to_the_copy(cloud):
    by = token(cloud, "OSR1")
    until(201, lambda: login(cloud, "AR").status_code)
    _, name = new_user(cloud, by, region="OSR1")
    assert login(cloud, "AR", name).status_code == 201
    until(201, lambda: login(cloud, "OSR1", name).status_code)
    # A failed login at the AR is counted there, and cleared at either.
    assert login(cloud, "AR", name, "wrong").status_code == 401
    until("1", lambda: cloud.sql("OSR1", "SELECT MAX(failed_auth_count) FROM keystone.local_user").strip())
    assert login(cloud, "OSR1", name).status_code == 201


def test_a_user_who_is_disabled_at_the_ar_is_served_until_the_copy_has_it(cloud):
    by, lags = token(cloud, "AR"), []
    headers = {"X-Auth-Token": by}
    for _ in range(5):
        key, name = new_user(cloud, by)
        until(201, lambda name=name: login(cloud, "OSR1", name).status_code)
        theirs = token(cloud, "OSR1", name)
        own = token(cloud, "OSR1")
        assert validated(cloud, "OSR1", theirs, own) == 200
        url = f"{cloud.url('AR')}/v3/users/{key}"
        answer = requests.patch(url, json={"user": {"enabled": False}}, headers=headers, timeout=30)
        assert answer.status_code == 200
        lags.append(until(404, lambda theirs=theirs, own=own: validated(cloud, "OSR1", theirs, own)))
        assert login(cloud, "OSR1", name).status_code == 401
    print("served after being disabled for (s):", " ".join(f"{lag:.3f}" for lag in lags))


def test_a_copy_that_is_about_to_follow_again_is_not_made_anew(cloud):
    with cloud.cut():
        # The eleventh column is Slave_IO_Running.
        until("Connecting", lambda: cloud.sql("OSR1", "SHOW SLAVE STATUS").split("\t")[10])
    assert cloud.copy() == ""
    until(201, lambda: login(cloud, "AR").status_code)


def test_the_copy_is_nobodys_to_write_and_is_made_once(cloud):
    grants = cloud.sql("OSR1", "SHOW GRANTS", "keystone", made.KEYSTONE)
    assert "INSERT" not in grants and "DELETE" not in grants and "ALL PRIVILEGES" not in grants
    # Users of the AR's databases are none of the copy's.
    cloud.sql("AR", "CREATE USER stranger@'%' IDENTIFIED BY 'x'")
    cloud.sql("AR", "GRANT ALL ON keystone.* TO stranger@'%'")
    cloud.sql("AR", "CREATE DATABASE other; CREATE TABLE other.t (i INT PRIMARY KEY); INSERT INTO other.t VALUES (1)")
    name = new_user(cloud, token(cloud, "AR"))[1]
    until(201, lambda: login(cloud, "OSR1", name).status_code)
    assert cloud.sql("OSR1", "SELECT COUNT(*) FROM mysql.user WHERE user = 'stranger'").strip() == "0"
    assert "other" not in cloud.sql("OSR1", "SHOW DATABASES").split()
    assert cloud.copy() == ""
    assert cloud.sql("OSR1", "SHOW GRANTS", "keystone", made.KEYSTONE) == grants
