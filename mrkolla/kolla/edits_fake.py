"""The edits that mend Kolla's mode for many fake computes on a host (``enable_nova_fake``).

With them, a compute host runs ``num_nova_fake_per_node`` nova-compute services HOST_1, HOST_2, ... and one Neutron
agent, which the ports of all their servers are bound to. Kolla makes the configuration of each; one container has all
of them, in which :mod:`mrkolla.kolla.nova_forks` loads Nova once.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

from mrkolla.kolla.edit import Edit

_RELEASES = ("2025.1", "2025.2", "2026.1")
_NOVA = "ansible/roles/nova-cell"
_NEUTRON = "ansible/roles/neutron/templates"
#: What a fake compute has no use for.
_RUN = """      - "/run:/run{{ ':shared' if kolla_container_engine == 'docker' else '' }}"
      - "/run/netns:/run/netns:shared"
      - "/run/lock/nova:/run/lock/nova:shared"
      - "/run/libvirt:/run/libvirt:shared"
      - "/run/nova:/run/nova:shared"
      - "/run/openvswitch:/run/openvswitch:shared"
"""
_WITHOUT_RUN = "      # Nothing of the host's /run: shared mounts in it are doubled at each start of each container.\n"


def _no_run(name: str, file: str) -> Edit:
    return Edit(
        name=f"fake-computes-mounts-{name}",
        releases=_RELEASES,
        file=f"{_NOVA}/{file}",
        anchor=_RUN,
        text=_WITHOUT_RUN,
        where="replace",
        reason="each start of a fake compute doubles the mounts under the host's /run, until systemd can start"
        " nothing; the fake driver needs none of them (seen: 41,013 mounts)",
        change="fake",
    )


#: The program that forks them, as YAML's block has it.
_FORKS = indent((Path(__file__).parent / "nova_forks.py").read_text(), " " * 6)
#: The one that has them all.
_FIRST = "{{ node_config_directory }}/nova-compute-fake-1"


def _one_container(name: str, file: str) -> Edit:
    loop = "  with_sequence: start=1 end={{ num_nova_fake_per_node }}\n"
    logs = '      - "kolla_logs:/var/log/kolla/"\n'
    return Edit(
        name=f"fake-computes-container-{name}",
        releases=_RELEASES,
        file=f"{_NOVA}/{file}",
        anchor=logs + loop,
        text=f"{logs}  # One container has all of them.\n  with_sequence: start=1 end=1\n",
        where="replace",
        reason="each container loads all of Nova for itself (seen: 140 MiB and 16 s for one more); forks of one process"
        " share what was loaded",
        change="fake",
    )


def _no_item(name: str, template: str, option: str) -> Edit:
    return Edit(
        name=f"fake-computes-{name}",
        releases=_RELEASES,
        file=f"{_NEUTRON}/{template}",
        anchor="{% if enable_nova_fake | bool %}\n" + option,
        text="{% if enable_nova_fake | bool and item is defined and item is string %}\n" + option,
        where="replace",
        reason=f"{option} is made from the number of a fake compute, in the files of Neutron's real services too, where"
        " there is none: its servers and agents get names that fit nothing",
        change="fake",
    )


FAKE_COMPUTES: tuple[Edit, ...] = (
    Edit(
        name="fake-computes-identity",
        releases=_RELEASES,
        file=f"{_NOVA}/tasks/config-nova-fake.yml",
        anchor="- name: Copying over config.json files for services\n",
        where="before",
        # The UUID is the one that the driver gives its node (version 5, of the DNS namespace).
        text="""- name: Copying over the fake computes' identities
  become: true
  vars:
    fake_compute: "{{ ansible_facts.hostname }}_{{ item }}"
  copy:
    content: "{{ fake_compute | to_uuid(namespace='6ba7b810-9dad-11d1-80b4-00c04fd430c8') }}"
    dest: "{{ node_config_directory }}/nova-compute-fake-{{ item }}/compute_id"
    mode: "0660"
  with_sequence: start=1 end={{ num_nova_fake_per_node }}
  notify:
    - Restart nova-compute-fake containers

- name: Copying over the fake computes' NVMe names
  become: true
  vars:
    fake_compute: "{{ ansible_facts.hostname }}_{{ item }}"
  copy:
    content: "nqn.2014-08.org.nvmexpress:uuid:{{ fake_compute | to_uuid }}\\n"
    dest: "{{ node_config_directory }}/nova-compute-fake-{{ item }}/hostnqn"
    mode: "0660"
  with_sequence: start=1 end={{ num_nova_fake_per_node }}
  notify:
    - Restart nova-compute-fake containers

- name: Copying over the fake computes' driver
  become: true
  copy:
    content: |
      import socket
      import uuid

      from nova.virt import fake


      class Driver(fake.PredictableNodeUUIDDriver):
          def get_nodenames_by_uuid(self, refresh=False):
              names = self.get_available_nodes(refresh)
              return {str(uuid.uuid5(uuid.NAMESPACE_DNS, name)): name for name in names}

          def network_binding_host_id(self, context, instance):
              return socket.gethostname()

          def manages_network_binding_host_id(self):
              return True
    dest: "{{ node_config_directory }}/nova-compute-fake-{{ item }}/mrkolla_fake.py"
    mode: "0660"
  with_sequence: start=1 end={{ num_nova_fake_per_node }}
  notify:
    - Restart nova-compute-fake containers

""",
        reason="config.json of a compute wants compute_id (kolla-ansible 3e4cfd4) and hostnqn (8b3e755), which are"
        " never made for fake computes; and their servers' ports can be bound to a host alone where a Neutron agent is",
        change="fake",
    ),
    Edit(
        name="fake-computes-forks",
        releases=_RELEASES,
        file=f"{_NOVA}/tasks/config-nova-fake.yml",
        anchor="- name: Ensuring config directory has correct owner and permission\n",
        where="before",
        text=f"""- name: Ensuring directories of the forked fake computes exist
  become: true
  file:
    path: "{_FIRST}/fakes/{{{{ item }}}}"
    state: "directory"
    mode: "0770"
  with_sequence: start=1 end={{{{ num_nova_fake_per_node }}}}

- name: Copying over what the forked fake computes read
  become: true
  copy:
    src: "{{{{ node_config_directory }}}}/nova-compute-fake-{{{{ item.0 }}}}/{{{{ item.1 }}}}"
    dest: "{_FIRST}/fakes/{{{{ item.0 }}}}/{{{{ item.1 }}}}"
    remote_src: true
    mode: "0660"
  loop: "{{{{ range(1, num_nova_fake_per_node | int + 1) | product(['nova.conf', 'compute_id']) | list }}}}"
  notify:
    - Restart nova-compute-fake containers

- name: Copying over what forks the fake computes
  become: true
  copy:
    content: |
{_FORKS}    dest: "{_FIRST}/nova_forks.py"
    mode: "0660"
  notify:
    - Restart nova-compute-fake containers

""",
        reason="the one container needs the configuration of all fake computes, and what starts them",
        change="fake",
    ),
    Edit(
        name="fake-computes-command",
        releases=_RELEASES,
        file=f"{_NOVA}/templates/nova-compute.json.j2",
        anchor='    "command": "nova-compute",\n',
        where="replace",
        text="""    "command": "{{ 'python3 /var/lib/kolla/fakes/' if enable_nova_fake | bool else '' }}nova-compute",
""",
        reason="the one container of the fake computes runs what forks them; its logs have that program's name",
        change="fake",
    ),
    Edit(
        name="fake-computes-driver-file",
        releases=_RELEASES,
        file=f"{_NOVA}/templates/nova-compute.json.j2",
        anchor='            "source": "{{ container_config_directory }}/release",\n',
        where="before",
        text="""            "source": "{{ container_config_directory }}/mrkolla_fake.py",
            "dest": "/var/lib/kolla/venv/lib/python3/site-packages/nova/virt/mrkolla_fake.py",
            "owner": "root",
            "perm": "0644",
            "optional": true
        },
        {
            "source": "{{ container_config_directory }}/nova_forks.py",
            "dest": "/var/lib/kolla/fakes/nova-compute",
            "owner": "root",
            "perm": "0644",
            "optional": true
        },
        {
            "source": "{{ container_config_directory }}/fakes",
            "dest": "/etc/nova/fakes",
            "owner": "nova",
            "perm": "0700",
            "optional": true
        },
        {
""",
        reason="the driver, what forks the fake computes, and their configuration: their places in the container",
        change="fake",
    ),
    Edit(
        name="fake-computes-driver",
        releases=_RELEASES,
        file=f"{_NOVA}/templates/nova.conf.j2",
        anchor="compute_driver = fake.FakeDriver\n",
        where="replace",
        text="compute_driver = mrkolla_fake.Driver\n",
        reason="the plain fake driver gives its node a new identity at each start, so that a compute that was started"
        " again is refused (seen)",
        change="fake",
    ),
    Edit(
        name="fake-computes-replies",
        releases=_RELEASES,
        file=f"{_NOVA}/templates/nova.conf.j2",
        anchor="use_queue_manager = true\n",
        where="after",
        # A fake compute's service_name is its number; other services of the role keep the host's name.
        text="""{% if enable_nova_fake | bool and service_name is match('[0-9]+$') %}
hostname = {{ ansible_facts.hostname }}_{{ service_name }}
{% endif %}
""",
        reason="oslo.messaging names a service's queue of replies by host, program and a count in /dev/shm, which each"
        " container has for itself: all fake computes of a host take their answers from one queue, and each other's"
        " (seen: none of three registered)",
        change="fake",
    ),
    _no_run("check", "tasks/config-nova-fake.yml"),
    _no_run("start", "handlers/main.yml"),
    _one_container("check", "tasks/config-nova-fake.yml"),
    _one_container("start", "handlers/main.yml"),
    Edit(
        name="fake-computes-wait",
        releases=_RELEASES,
        file=f"{_NOVA}/tasks/wait_discover_computes.yml",
        anchor='expected_compute_service_hosts: "{{ virt_compute_service_hosts + ironic_compute_service_hosts }}"\n',
        where="replace",
        text="""fake_compute_service_hosts: >-
      {{ virt_computes_in_batch |
         map('extract', hostvars, ['ansible_facts', 'hostname']) |
         product(range(1, num_nova_fake_per_node | int + 1)) |
         map('join', '_') |
         list }}
    expected_compute_service_hosts: >-
      {{ (fake_compute_service_hosts if enable_nova_fake | bool else virt_compute_service_hosts) +
         ironic_compute_service_hosts }}
""",
        reason="the run waits for compute services that are called as their hosts, and fake ones have a number behind:"
        " it waits for a host that never comes",
        change="fake",
    ),
    _no_item("neutron", "neutron.conf.j2", "ovs_integration_bridge"),
    _no_item("neutron-agent", "openvswitch_agent.ini.j2", "integration_bridge"),
    Edit(
        name="fake-computes-one-agent",
        releases=_RELEASES,
        file="ansible/roles/neutron/tasks/deploy.yml",
        anchor="config-neutron-fake.yml\n  when:\n",
        where="after",
        text="    - neutron_agent_per_fake_compute | default(false) | bool\n",
        reason="the agents of fake computes are all one container, of one name, made again once for each compute;"
        " the host's own agent is enough",
        change="fake",
    ),
)
