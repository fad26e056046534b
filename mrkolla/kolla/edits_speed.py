"""Edits of Kolla that make a run cheaper or its arguments private; what it does and writes stays the same."""

from __future__ import annotations

from mrkolla.kolla.edit import Edit

SPEED: tuple[Edit, ...] = (
    Edit(
        name="module-imports-at-its-head",
        releases=("2025.1",),
        file="ansible/library/kolla_container.py",
        anchor="from ansible.module_utils.kolla_container_worker import ContainerWorker\n",
        where="after",
        text="""try:
    from ansible.module_utils.kolla_docker_worker import DockerWorker  # noqa: F401
except ImportError:  # a host with podman
    pass
""",
        reason="Mitogen sends a module with what it imports at its head; this one is imported within a function, and"
        " fails on the host (mitogen issue 1202)",
        change="accelerated",
    ),
    Edit(
        name="unit-state-polled",
        releases=("2025.1",),
        file="ansible/module_utils/kolla_systemd_worker.py",
        anchor="        delay = 5\n",
        where="replace",
        text="        delay = 0.2\n",
        reason="a container's unit runs after a fraction of a second, and is looked at again only after five",
        change="accelerated",
    ),
    Edit(
        name="unit-state-after-its-job",
        releases=("2025.1",),
        file="ansible/module_utils/kolla_systemd_worker.py",
        anchor="                return str(service[4])\n",
        where="replace",
        text="                return None if service[7] else str(service[4])  # it has a job yet to be done\n",
        reason="systemd is only asked to restart a unit: looked at once, it may still run as before, and what is called"
        " in the container next dies with it",
        change="accelerated",
    ),
    Edit(
        name="new-database-not-waited-for",
        releases=("2025.1",),
        file="ansible/roles/mariadb/tasks/lookup_cluster.yml",
        anchor="        timeout: 10\n",
        where="replace",
        text='        timeout: "{{ 10 if mariadb_cluster_exists else 1 }}"\n',
        reason="where the volume was just made there is no MariaDB whose port could come up",
        change="accelerated",
    ),
    Edit(
        name="computes-polled",
        releases=("2025.1",),
        file="ansible/roles/nova-cell/tasks/wait_discover_computes.yml",
        anchor="      delay: 10\n",
        where="replace",
        text="      delay: 2\n",
        reason="a nova-compute registers when it has started, and is looked for again only after ten seconds",
        change="accelerated",
    ),
    Edit(
        name="rabbitmq-asked-again",
        releases=("2025.1",),
        file="ansible/roles/rabbitmq/tasks/restart_services.yml",
        anchor='  command: "{{ kolla_container_engine }} exec {{ service.container_name }} rabbitmqctl wait'
        ' --timeout 60 {{ rabbitmq_pid_file }}"\n',
        where="after",
        text="""  register: mrkolla_rabbitmq
  until: mrkolla_rabbitmq is succeeded
  retries: 10
  delay: 1
""",
        reason="where the container's unit is seen to run at once, its configuration is not all in place yet, and the"
        " first call may find a file that it may not read",
        change="accelerated",
    ),
    Edit(
        name="nova-api-asked-again",
        releases=("2025.1",),
        file="ansible/roles/nova-cell/tasks/config.yml",
        anchor="      register: hypervisors\n",
        where="after",
        text="""      until: hypervisors is succeeded
      retries: 30
      delay: 2
""",
        reason="nova-api was started a moment ago, and HAProxy answers 503 until it has seen it; nothing waits for it",
        change="accelerated",
    ),
    Edit(
        name="toolbox-arguments-in-environment",
        releases=("2025.1",),
        file="ansible/library/kolla_toolbox.py",
        anchor="        output_raw = self._run_command(kolla_toolbox,\n",
        where="before",
        text="""        if 'mrkolla.toolbox' in kolla_toolbox.labels:
            environment['MRKOLLA_TOOLBOX'] = json.dumps(command[1:])
            command = command[:1]
""",
        reason="the arguments of a process are for every user of the host to read, and these hold passwords; the images"
        " that mrkolla builds take them from the environment, and say so by a label",
        change="private",
    ),
)
