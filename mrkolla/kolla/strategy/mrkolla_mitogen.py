"""Ansible's linear strategy over Mitogen, which spends a worker process on a task only where there is work to do.

Loaded by the ansible-playbook of Kolla's own environment, never by mrkolla itself. Five things make a run cheap:
Mitogen keeps one Python at work on each host; a task that does nothing on its host, since its conditions are false for
all items or since it includes others, is answered in the main process, which forks for it otherwise; a Jinja template
is compiled once for all runs, whose workers share what they compiled in a folder (Ansible compiles the same few
thousand expressions anew for each task); another host's variables are put together once a task; and so is each
variable for a task's conditions, and for its arguments. Tasks themselves go on to run in workers: run inside the main
process, their results would fill the pipe that only it empties.
"""

from __future__ import annotations

DOCUMENTATION = """
name: mrkolla_mitogen
short_description: mitogen_linear that answers false conditions without a worker
description:
  - Ansible's linear strategy, with Mitogen's connections and with conditions evaluated before a worker is forked.
author: mrkolla
"""

import contextlib  # noqa: E402
import functools  # noqa: E402
import gc  # noqa: E402
import hashlib  # noqa: E402
import importlib.util  # noqa: E402
import marshal  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import ansible_mitogen.affinity  # noqa: E402
import ansible_mitogen.strategy  # noqa: E402
import jinja2.environment  # noqa: E402
from ansible.constants import _ACTION_ALL_INCLUDE_ROLE_TASKS as _INCLUDES  # noqa: E402
from ansible.executor.task_executor import TaskExecutor  # noqa: E402
from ansible.executor.task_result import TaskResult  # noqa: E402
from ansible.playbook.task import Task  # noqa: E402
from ansible.plugins import loader as plugin_loader  # noqa: E402
from ansible.plugins.loader import strategy_loader  # noqa: E402
from ansible.template import Templar  # noqa: E402
from ansible.template.vars import AnsibleJ2Vars  # noqa: E402
from ansible.vars.hostvars import HostVars  # noqa: E402
from jinja2 import Undefined  # noqa: E402

# Mitogen binds a run's processes to cores: on two, the workers of all runs side by side would share the second one.
ansible_mitogen.affinity.policy = ansible_mitogen.affinity.Policy()

_compile = jinja2.environment.Environment.compile
_compiled: dict[tuple, object] = {}
#: Where compiled templates are kept from run to run; none: in this process alone.
_FOLDER = Path(os.environ["MRKOLLA_TEMPLATES"]) if os.environ.get("MRKOLLA_TEMPLATES") else None
_CHECKSUM = hashlib.blake2b().digest_size
# What of an environment decides the code that a template is compiled to.
_SYNTAX = (
    *("block_start_string", "block_end_string", "variable_start_string", "variable_end_string"),
    *("comment_start_string", "comment_end_string", "line_statement_prefix", "line_comment_prefix", "trim_blocks"),
    *("lstrip_blocks", "newline_sequence", "keep_trailing_newline", "optimized", "autoescape"),
)
# Filters whose value differs from call to call: of a constant Jinja works it out when it compiles.
_VOLATILE = re.compile(r"random|shuffle|password_hash")


def _compile_once(self, source, name=None, filename=None, raw=False, defer_init=False):
    special = not isinstance(source, str) or raw or name or filename or defer_init
    if special or _VOLATILE.search(source):
        return _compile(self, source, name, filename, raw, defer_init)
    # The finalizer is compiled in for constants: another one makes another template.
    finalize = f"{self.finalize.__module__}.{self.finalize.__qualname__}" if self.finalize else None
    syntax = [getattr(self, key) for key in _SYNTAX]
    key = (str(source), type(self).__name__, finalize, *sorted(self.extensions), *syntax)
    if key not in _compiled:
        _compiled[key] = _shared(key, lambda: _compile(self, source))
    return _compiled[key]


def _shared(key, compile_it):
    """The code for ``key`` that a process of this or another run left in the folder, or else leaves there now."""
    if _FOLDER is None:
        return compile_it()
    digest = hashlib.blake2b(repr((importlib.util.MAGIC_NUMBER, key)).encode(), digest_size=20).hexdigest()
    path = _FOLDER / digest
    with contextlib.suppress(OSError):
        data = path.read_bytes()
        if hashlib.blake2b(data[_CHECKSUM:]).digest() == data[:_CHECKSUM]:
            return marshal.loads(data[_CHECKSUM:])
    code = compile_it()
    with contextlib.suppress(OSError):  # a full disk costs time, nothing else
        _FOLDER.mkdir(mode=0o700, exist_ok=True)
        data = marshal.dumps(code)
        with tempfile.NamedTemporaryFile(dir=_FOLDER, delete=False) as file:
            file.write(hashlib.blake2b(data).digest() + data)
        os.replace(file.name, path)
    return code


jinja2.environment.Environment.compile = _compile_once  # type: ignore[method-assign]

_raw_get = HostVars.raw_get
_hosts_variables: dict[str, object] = {}


def _raw_get_once(self, host_name):
    # Kolla's templates ask for the addresses of the same few hosts hundreds of times a task.
    if host_name not in _hosts_variables:
        _hosts_variables[host_name] = _raw_get(self, host_name)
    return _hosts_variables[host_name]


HostVars.raw_get = _raw_get_once

_set_variables = Templar.available_variables.fset
_look_up = AnsibleJ2Vars.__getitem__
_do_template = Templar.do_template
# Templates that may change what they look up, or whose value is another each time: they look up anew, and what hangs on
# them is not remembered.
_IMPURE = re.compile(
    rf"{_VOLATILE.pattern}|lookup|query|\bq\(|now\(|\bdo\b|\.(?:append|extend|insert|update|pop|remove|clear)\("
)
#: How many of them were rendered.
_impure_so_far = [0]


def _set_variables_anew(self, variables):
    self._remembered = {}
    _set_variables(self, variables)


def _do_template_anew(self, data, *args, **options):
    if not isinstance(data, str) or not _IMPURE.search(data):
        return _do_template(self, data, *args, **options)
    _impure_so_far[0] += 1
    before, self._remembered = getattr(self, "_remembered", {}), None
    try:
        return _do_template(self, data, *args, **options)
    finally:
        self._remembered = before


def _look_up_once(self, name):
    # Kolla's tasks name one service of a role, and Ansible puts together all of them, each from a hundred variables,
    # once for a condition and once for each argument.
    remembered = self._templar.__dict__.setdefault("_remembered", {})
    local, variables, _ = self.maps
    if remembered is None or name in local or name not in variables:
        return _look_up(self, name)
    key = (type(self._templar.environment), name)
    if key not in remembered:
        before, value = _impure_so_far[0], _look_up(self, name)
        if before != _impure_so_far[0] or value is variables[name] or isinstance(value, Undefined):
            return value
        remembered[key] = value
    return remembered[key]


Templar.do_template = _do_template_anew
Templar.available_variables = Templar.available_variables.setter(_set_variables_anew)
AnsibleJ2Vars.__getitem__ = _look_up_once

_evaluate = Task.evaluate_conditional_with_result
#: The task at hand, by its id, where its conditions were seen to hold for the host at hand.
_holding: set[str] = set()


def _evaluate_once(self, templar, variables):
    return (True, None) if self._uuid in _holding else _evaluate(self, templar, variables)


Task.evaluate_conditional_with_result = _evaluate_once

Linear: Any = strategy_loader.get("linear", class_only=True)


class HostNeeded(BaseException):
    """A task has work to do on its host; no Exception, since Ansible makes a failure of each of those."""


@functools.cache
def _hostless(kind):
    """A class like ``kind``, of tasks that stop before their arguments are worked out: the rest is for their host."""

    def post_validate(self, templar):
        raise HostNeeded

    return type(kind.__name__, (kind,), {"post_validate": post_validate})


class Told:
    """What an executor tells of a loop's items, kept until it is known that all of them do nothing on a host."""

    def __init__(self):
        self.callbacks = []

    def send_callback(self, name, item):
        self.callbacks.append((name, item))


class StrategyModule(ansible_mitogen.strategy.StrategyMixin, Linear):
    """The strategy; Ansible finds it by this name."""

    def _process_pending_results(self, *args, **options):
        try:
            return super()._process_pending_results(*args, **options)
        finally:
            _hosts_variables.clear()  # what tasks found out is among a host's variables now

    def _queue_task(self, host, task, task_vars, play_context):
        _hosts_variables.clear()
        answer = self._answer(host, task, task_vars, play_context)
        if answer is None:
            return self._queue_for_worker(host, task, task_vars, play_context)
        # What the base class and the worker do around a task, for one that ends before it needs its host.
        result, callbacks = answer
        entry = {"host": host, "task": task, "task_vars": task_vars, "play_context": play_context}
        self._queued_task_cache[(host.name, task._uuid)] = entry
        self._tqm.send_callback("v2_runner_on_start", host, task)
        for name, item in callbacks:
            self.normalize_task_result(item)
            self._tqm.send_callback(name, item)
        self.normalize_task_result(result)
        with self._results_lock:
            self._pending_results += 1
            self._results.append(result)
        return None

    def _queue_for_worker(self, host, task, task_vars, play_context):
        # A worker ends after its one task. It collects no garbage: a collection would write to, and so copy, most of
        # the memory that it shares with the main process.
        gc.disable()
        try:
            return super()._queue_task(host, task, task_vars, play_context)
        finally:
            gc.enable()

    def _answer(self, host, task, task_vars, play_context):
        """The result of ``task`` and the callbacks of its items, where it does nothing on a host; None otherwise.

        That is one whose conditions are all false, or one that includes tasks. A worker meets the same errors again,
        and reports them with their place.
        """
        _holding.clear()
        if not task.when and task.action not in _INCLUDES:
            return None
        stopped = task.copy(exclude_parent=True, exclude_tasks=True)
        stopped._parent = task._parent
        stopped.__class__ = _hostless(type(task))
        recorder = Told()
        shared = (self._loader, plugin_loader, recorder, self._variable_manager)
        try:
            result = TaskExecutor(host, stopped, dict(task_vars), play_context.copy(), None, *shared).run()
        except HostNeeded:
            if task.loop is None and not task.loop_with:
                _holding.add(task._uuid)
            return None
        if result.get("failed"):
            return None
        return TaskResult(host.name, task._uuid, result, task_fields=stopped.dump_attrs()), recorder.callbacks
