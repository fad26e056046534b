"""What of the experiment's keystone section reaches Kolla: keep-alive, workers, and the access log in every region."""

from __future__ import annotations

import io

import pytest
import yaml

from mrkolla.base.errors import InputError
from mrkolla.base.progress import Progress
from mrkolla.cloud.deployed import DeployedCloud
from mrkolla.config.sections import Keystone, KeystoneSettings
from mrkolla.kolla.factors import NEEDS, reconfigurations
from mrkolla.kolla.httplog import CLOSE, frontend_lines


@pytest.fixture
def planned(experiment, tmp_path):
    """The globals of each region for the sections given."""

    def globals_of(**sections) -> dict[str, dict]:
        folder = DeployedCloud(experiment(**sections), Progress(file=io.StringIO()), tmp_path).write_plan(
            tmp_path / "plan"
        )
        return {name: yaml.safe_load((folder / name / "globals.yml").read_text()) for name in ("AR", "OSR1", "OSR2")}

    return globals_of


def test_every_region_has_the_access_log(planned):
    for values in planned().values():
        assert values["haproxy_frontend_http_extra"] == frontend_lines()
        assert "keystone_api_workers" not in values


def test_without_keep_alive_the_admin_region_closes_connections_and_no_other_does(planned):
    made = planned(keystone={"keep_alive": False})
    assert CLOSE in made["AR"]["haproxy_frontend_http_extra"]
    assert CLOSE not in made["OSR1"]["haproxy_frontend_http_extra"]
    assert planned(keystone={"keep_alive": True}) == planned()


def test_a_persons_own_lines_win_but_may_not_drop_what_was_asked_for(planned):
    own = {"globals": {"haproxy_frontend_http_extra": ["option httplog"]}}
    assert planned(kolla=own)["AR"]["haproxy_frontend_http_extra"] == ["option httplog"]
    with pytest.raises(InputError, match=r"keystone\.keep_alive: false needs 'option httpclose'"):
        planned(kolla=own, keystone={"keep_alive": False})
    with pytest.raises(InputError, match="haproxy_frontend_http_extra: must be a list of lines, not 'x'"):
        planned(kolla={"globals": {"haproxy_frontend_http_extra": "x"}})
    both = {"globals": {"haproxy_frontend_http_extra": ["option httplog", CLOSE]}}
    assert planned(kolla=both, keystone={"keep_alive": False})["AR"]["haproxy_frontend_http_extra"][1] == CLOSE


def test_workers_are_keystones_alone(planned):
    made = planned(keystone={"workers": 7})
    assert made["AR"]["keystone_api_workers"] == 7
    assert "keystone_api_workers" not in made["OSR1"]
    with pytest.raises(InputError, match="keystone_api_workers"):
        planned(keystone={"workers": 7}, kolla={"globals": {"keystone_api_workers": 3}})


def test_what_a_change_of_a_factor_needs():
    def steps(**after) -> list[tuple[str, list[str], bool]]:
        found = reconfigurations(Keystone(token_cache=300), Keystone(**({"token_cache": 300} | after)))
        return [(one.kind, one.arguments(), one.new_passwords) for one in found]

    assert steps() == steps(keep_alive=True) == []
    assert steps(keep_alive=False) == [("AR", ["reconfigure", "--tags", "loadbalancer"], False)]
    assert steps(hash_rounds=4, workers=2) == [("AR", ["reconfigure", "--tags", "keystone"], True)]
    assert steps(keep_alive=False, workers=2, token_cache=0) == [
        ("AR", ["reconfigure", "--tags", "loadbalancer,keystone"], False),
        ("OSR", ["reconfigure", "--tags", "glance,placement,neutron,nova"], False),
    ]
    assert set(NEEDS) == set(KeystoneSettings.model_fields)
