"""The accelerated way to run Kolla: what it registers and says of a task is what the stock way does.

That it renders the same files is seen on a whole cloud (tests/e2e/test_two_regions.py).
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml

from mrkolla.kolla import run
from mrkolla.kolla.env import KollaEnv

pytestmark = pytest.mark.root

#: Conditions of every kind that Kolla's roles have; what each task registers is printed at the end.
TASKS = """
- set_fact: {yes_it_is: true, names: [a, b]}
- {name: plain false, command: "true", when: "not yes_it_is", register: r1}
- {name: list of conditions, command: "true", when: [yes_it_is, "names | length > 2"], register: r2}
- {name: holds, command: "echo hello", when: yes_it_is, register: r3, changed_when: false}
- {name: loop, command: "echo {{ item }}", loop: "{{ names }}", when: "item == 'b'", register: r4}
- {name: undefined in a condition, command: "true", when: "nowhere.at_all", register: r5, ignore_errors: true}
- {name: secret, command: "true", when: "not yes_it_is", no_log: true, register: r6}
- {name: a block, when: "not yes_it_is", block: [{command: "true", register: r7}]}
- {name: notified, command: "true", when: yes_it_is, notify: handled, changed_when: true}
- {name: until, command: "true", until: r8 is success, retries: 2, delay: 0, when: "not yes_it_is", register: r8}
- {name: with dict, debug: {msg: "{{ item.key }}"}, with_dict: {x: 1}, when: "item.value == 2", register: r9}
- {name: delegated, command: "true", delegate_to: localhost, when: "not yes_it_is", register: r10}
- include_tasks: {file: more.yml}
  when: "not yes_it_is"
- name: loop of none
  command: "echo {{ item }}"
  loop: "{{ names }}"
  loop_control: {index_var: place, label: "{{ item }}!"}
  when: "item == 'c'"
  register: r11
- {name: secret loop, command: "true", loop: [1], when: "item == 2", no_log: "{{ yes_it_is }}", register: r12}
- {name: no items, command: "true", loop: [], when: yes_it_is, register: r13}
- {name: undefined loop, command: "true", loop: "{{ nowhere }}", when: yes_it_is, ignore_errors: true, register: r14}
- {name: undefined loop not reached, command: "true", loop: "{{ nowhere }}", when: "not yes_it_is", register: r15}
- {include_tasks: "{{ item }}.yml", loop: [some, more], when: "item == 'some'", vars: {of_it: 1}}
- include_tasks: {file: "{{ 'so' }}me.yml"}
  vars: {of_it: 2}
- {include_tasks: nothere.yml, ignore_errors: true, when: "not yes_it_is"}
# What a variable is put together from changes between tasks, items and templates.
- set_fact: {r17: "{{ derived.a }} {{ derived.b | length }} {{ derived.a }}"}
- set_fact: {base: 5}
- set_fact:
    r18: ["{{ derived.a }}", "{% set _ = derived.b.append(9) %}{{ derived.b | length }}", "{{ derived.b | length }}"]
- name: of items
  command: "echo {{ per }} {{ per }} {{ derived.a }}"
  loop: [1, 2]
  vars: {per: "{{ item ~ base }}"}
  register: r19
- name: until it is what was registered
  shell: "echo x >> {{ out }}.n; wc -l < {{ out }}.n"
  register: r20
  until: last == '3'
  vars: {last: "{{ r20.stdout | default('') }}"}
  retries: 5
  delay: 0
- set_fact: {r21: "{{ (once ~ once) | length }} {{ 1 if numbers | unique | length > 1 else 0 }}"}
  vars: {once: "{{ 'xyz' | shuffle | join }}", numbers: "{{ range(40) | map('extract', drawn) | list }}"}
- meta: flush_handlers
- copy: {content: "{{ vars_of_it | to_nice_json }}", dest: "{{ out }}"}
  vars: {vars_of_it: [RESULTS]}
"""
SOME = """
- {name: included, set_fact: {r16: "{{ r16 | default([]) + [of_it] }}"}}
- {name: not for it, command: "true", loop: [1, 2], when: of_it == 3}
"""
_NUMBERS = ("start", "end", "delta")


def results(kolla: KollaEnv, folder: Path, accelerated: bool) -> tuple[list[dict], list[str]]:
    """What the tasks register, without times, and what is printed of them."""
    folder.mkdir()
    tasks = yaml.safe_load(TASKS.replace("[RESULTS]", json.dumps([f"{{{{ r{n} }}}}" for n in range(1, 22)])))
    handlers = [{"name": "handled", "command": "touch {{ out }}.handled", "changed_when": False}]
    drawn = ["{{ 1000000 | random }}"] * 40
    given = {"base": 1, "derived": {"a": "{{ base }}", "b": ["{{ base }}", "{{ base }}"]}, "drawn": drawn}
    play = {"hosts": "localhost", "gather_facts": False, "vars": given, "tasks": tasks, "handlers": handlers}
    (folder / "book.yml").write_text(yaml.safe_dump([play]))
    (folder / "some.yml").write_text(SOME)
    out = folder / "out.json"
    (folder / "hosts").write_text(f"localhost ansible_connection=local ansible_python_interpreter={kolla.python}\n")
    argv = [str(kolla.bin / "ansible-playbook"), "-i", "hosts", "-e", f"out={out}", "book.yml"]
    # A socket's path has at most 107 characters, and pytest's folders come close to that.
    with tempfile.TemporaryDirectory(prefix="mrkolla-") as scratch:
        environment = run.environment(kolla, accelerated) | {"TMPDIR": scratch}
        if accelerated:
            environment["MRKOLLA_TEMPLATES"] = str(folder.parent / "templates")
        done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "out.json.handled").exists()
    registered = [_without_times(one) for one in json.loads(out.read_text().replace(str(folder), ""))]
    printed = done.stdout.replace(str(folder), "").partition("PLAY RECAP")[0].splitlines()
    return registered, [line for line in printed if line and not re.match(r"\w+day \d|.*\d:\d\d:\d\d", line)]


def _without_times(value):
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if key not in _NUMBERS}
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


def test_what_tasks_register_and_print_is_the_same(kolla: KollaEnv, tmp_path: Path):
    stock = results(kolla, tmp_path / "stock", False)
    assert [one.get("skipped", False) for one in stock[0][:3]] == [True, True, False]
    assert stock[0][15] == [1, 2]
    assert results(kolla, tmp_path / "accelerated", True) == stock
    compiled = {path: path.read_bytes() for path in (tmp_path / "templates").iterdir()}
    assert compiled
    for path in compiled:  # a power cut, a bad disk
        path.write_bytes(compiled[path][:-1] + b"?")
    assert results(kolla, tmp_path / "again", True) == stock
    assert {path: path.read_bytes() for path in (tmp_path / "templates").iterdir()} == compiled


#: Kolla's own worker, at a systemd that answers what is told of one unit: its state, and the job that it has yet to do.
RESTARTED = """
import sys, types
answers = iter([("running", 7), ("stop", 7), ("running", 0)])
class Manager:
    def RestartUnit(self, name, mode): pass
    def ListUnits(self):
        self.last = state, job = next(answers)
        return [("kolla-keystone-container.service", "", "loaded", "active", state, "", "/", job, "restart", "/")]
manager = Manager()
bus = types.SimpleNamespace(get_object=lambda *a: None)
sys.modules["dbus"] = types.SimpleNamespace(SystemBus=lambda: bus, Interface=lambda *a: manager)
sys.path.insert(0, sys.argv[1])
from kolla_systemd_worker import SystemdWorker
assert SystemdWorker({"name": "keystone", "restart_policy": "no"}).restart()
print(*manager.last)
"""


def test_a_restart_is_over_when_systemd_has_done_it(kolla: KollaEnv):
    """Not while the unit runs as before: what is called in its container then dies with it."""
    modules = kolla.share / "ansible" / "module_utils"
    argv = [str(kolla.python), "-c", RESTARTED, str(modules)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("running 0\n", "")
