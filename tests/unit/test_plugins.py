"""Plug-ins: found by entry points, loaded when used; one that is broken or doubled is a line, and in nobody's way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mrkolla import config, providers
from mrkolla.base import plugins
from mrkolla.base.errors import InputError, LackError
from mrkolla.bench import make_tool
from mrkolla.cli import doctor
from mrkolla.cli import main as cli
from mrkolla.experiment import script
from mrkolla.faults import hold
from mrkolla.wan.netem import Netem
from mrkolla.wan.wan import choose

TOP = Path(__file__).parents[2]
TOOL = """
from typing import Literal
from pydantic import Field
from mrkolla.base.plugins import Finding
from mrkolla.bench import Tool
from mrkolla.config import ToolOptions


class Options(ToolOptions):
    '''Mine: a tool of somebody else.'''

    tool: Literal["mine"] = Field("mine", description="the tool's name")
    much: int = Field(3, description="how much")


class Mine(Tool):
    name, options = "mine", Options

    def __init__(self, much):
        self.much = much

    @classmethod
    def needs(cls):
        return [Finding("mine", False, "no anvil", "buy one")]

    def run(self, ctx, point, regions):
        yield from ()


class Other(Mine):
    name = "other"


class Half(Tool):
    name, options = "broken", Options


NOTHING = object()
"""

HEAD = """
from typing import ClassVar, Literal

from pydantic import field_validator

from mrkolla.bench import Tool
from mrkolla.config import TestbedOptions, ToolOptions
from mrkolla.config.faults import FaultOptions
from mrkolla.config.releases import Release
from mrkolla.faults import Fault
from mrkolla.providers import Testbed


class Bare:
    pass


"""
BED = """
class X(Testbed):
    name = 'x'
    regions = kolla_globals = links = reserve = print
    def seen(self, cloud):
        return None
    def destroy(self, cloud):
        return None
"""

pytestmark = pytest.mark.usefixtures("signals")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Have a distribution installed, with a module ``somebody`` and entry points; read anew now and at the end."""

    def install(points: dict[str, str], name: str = "somebody", code: str = TOOL, group: str = "tools") -> Path:
        site = tmp_path / name
        info = site / f"{name}-7.1.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 7.1\n")
        lines = [f"[mrkolla.{group}]\n{key} = {value}\n" for key, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(str(site))
        plugins._points.cache_clear()
        for registry in plugins.REGISTRIES:
            registry._told.clear()
        return site

    yield install
    monkeypatch.undo()
    plugins._points.cache_clear()
    sys.modules.pop("somebody", None)


def call(capsys, *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(argv))
    said = capsys.readouterr()
    return ended.value.code or 0, said.out, said.err


def with_tool(experiment, **entry):
    return experiment(bench=[entry])


def test_a_tool_of_somebody_else_is_read_made_and_listed(install, experiment, capsys):
    install({"mine": "somebody:Mine"})
    [entry] = with_tool(experiment, tool="mine", much=4).bench
    assert entry.much == 4 and make_tool(entry.model_dump()).much == 4
    with pytest.raises(InputError, match=r"bench\[0\].mach: unknown key 'mach'; did you mean 'much'"):
        with_tool(experiment, tool="mine", mach=4)
    code, out, err = call(capsys, "plugins", "--format", "json")
    rows = {(row["kind"], row["name"]): row for row in json.loads(out)["plugins"]}
    assert (code, err) == (0, "")
    assert rows["tool", "mine"] == {
        "kind": "tool", "name": "mine", "version": "7.1", "distribution": "somebody", "object": "somebody:Mine",
        "problem": "",
    }  # fmt: skip
    assert rows["testbed", "local"]["distribution"] == "mrkolla"
    tools = config.schema()["properties"]["bench"]["items"]["oneOf"]
    assert "Mine: a tool of somebody else." in {tool["description"] for tool in tools}
    code, out, _ = call(capsys, "doctor")
    assert code == 3 and "no anvil" in out and "buy one" in out


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("somebody:Mine", "calls itself 'mine': both must be the same"),
        ("somebody:Half", "has no run (docs/plugins.md)"),
        ("somebody:Nobody", "cannot be loaded: AttributeError: module 'somebody' has no attribute 'Nobody'"),
        ("nowhere:Mine", "cannot be loaded: ModuleNotFoundError: No module named 'nowhere'"),
        ("somebody:NOTHING", "is no tool: it must come from the base class of that kind"),
        ("1bad:::", "names no object: its entry point must be MODULE:OBJECT"),
    ],
)
def test_a_broken_one_is_a_line_and_in_nobodys_way(install, experiment, capsys, target, why):
    install({"broken": target})
    made = with_tool(experiment, tool="probe")
    assert capsys.readouterr().err == ""
    assert made.bench[0].samples == 200
    with pytest.raises(LackError) as refused:
        with_tool(experiment, tool="broken")
    assert str(refused.value).startswith(f"tool 'broken' of somebody 7.1 ({target}) {why}")
    assert "\n" not in str(refused.value)
    code, out, err = call(capsys, "schema")
    assert code == 0 and '"timed"' not in out
    assert all(line.startswith("mrkolla: left out: tool 'broken'") for line in err.splitlines())
    rows = json.loads(call(capsys, "plugins", "--format", "json")[1])["plugins"]
    assert [row["name"] for row in rows if row["problem"]] == ["broken"]


def test_what_a_plugin_raises_when_it_is_loaded_is_a_line(install):
    install({"broken": "somebody:Mine"}, code="raise RuntimeError('two\\nlines')\n")
    with pytest.raises(LackError, match=r"cannot be loaded: RuntimeError: two lines; mend or uninstall it$"):
        plugins.TOOLS["broken"]


BROKEN = {
    "it ends the process": ("tools", "raise SystemExit(0)", "cannot be loaded: SystemExit: 0"),
    "no options": ("tools", "class X(Tool):\n    name, options, run = 'x', None, print", "has no options"),
    "options of another kind": ("tools", "class X(Tool):\n    name, options, run = 'x', dict, print", "has no options"),
    "options without a schema": (
        "tools",
        "class O(ToolOptions, arbitrary_types_allowed=True):\n    bad: Bare\n"
        "class X(Tool):\n    name, options, run = 'x', O, print",
        "cannot be loaded: ",
    ),
    "options of another's": (
        "tools",
        "class O(ToolOptions):\n    tool: Literal['y'] = 'y'\nclass X(Tool):\n    name, options, run = 'x', O, print",
        "has options whose 'tool' is 'y', not its name",
    ),
    "a name that is a number": (
        "tools",
        "class O(ToolOptions):\n    tool: int = 3\nclass X(Tool):\n    name, options, run = 'x', O, print",
        "has options without the key 'tool' of ToolOptions, in its type",
    ),
    "a name that is no key": (
        "tools",
        "class O(ToolOptions):\n    tool: ClassVar = 'x'\nclass X(Tool):\n    name, options, run = 'x', O, print",
        "has options without the key 'tool' of ToolOptions, in its type",
    ),
    "a key of another type than its kind's": (
        "faults",
        "class O(FaultOptions):\n    at_s: str = '3'\n"
        "class X(Fault):\n    name, options, acts, sight = 'x', O, print, print",
        "has options without the key 'at_s' of FaultOptions, in its type",
    ),
    "a key that hides a method": (
        "tools",
        "class O(ToolOptions):\n    parts: int = 3\nclass X(Tool):\n    name, options, run = 'x', O, print",
        "has options whose key 'parts' hides what ToolOptions has under this name",
    ),
    "a default of another type": (
        "tools",
        "class O(ToolOptions):\n    much: int | None = 'three'\nclass X(Tool):\n    name, options, run = 'x', O, print",
        "has options whose 'much' is 'three' by default, which is no integer or null",
    ),
    "a type that is not there": (
        "tools",
        "class O(ToolOptions):\n    much: 'Nowhere'\nclass X(Tool):\n    name, options, run = 'x', O, print",
        "cannot be loaded: PydanticUserError: ",
    ),
    "no name": ("tools", "class X(Tool):\n    run = print", "calls itself ''"),
    "a name that raises": (
        "testbeds",
        BED.replace("name = 'x'", "name = property(lambda self: 1 / 0)") + "X = X()",
        "cannot be loaded: ZeroDivisionError",
    ),
    "an object for a class": (
        "tools",
        "class Y(Tool):\n    name, run = 'x', print\nX = Y()",
        "is an object: a tool is the class",
    ),
    "a method that cannot be called": ("tools", "class X(Tool):\n    name, run = 'x', None", "has no run"),
    "a testbed of no base class": (
        "testbeds",
        "class X:\n    plugin_kind, name = 'testbed', 'x'\nX = X()",
        "is no testbed: it must come from the base class",
    ),
    "a testbed without options": ("testbeds", BED + "    options = None\nX = X()", "has no options"),
    "a class for an object": ("testbeds", BED, "is a class: a testbed is an object"),
    "a release without its attributes": (
        "releases",
        "class X(Release):\n    name = 'x'\n    def __init__(self): pass\nX = X()",
        "has no kolla_ansible",
    ),
    "a release of other types": (
        "releases",
        "X = Release('x', None, '', (), (), '', ())",
        "has a kolla_ansible that is no str",
    ),
    "a release of no base class": ("releases", "class X:\n    plugin_kind, name = 'release', 'x'", "is no release"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_plugin_is_told_when_it_is_loaded(install, case):
    group, code, why = BROKEN[case]
    install({"x": "somebody:X"}, code=HEAD + code, group=group)
    registry = next(one for one in plugins.REGISTRIES if one.group == f"mrkolla.{group}")
    with pytest.raises(LackError) as refused:
        registry["x"]
    said = str(refused.value)
    assert said.startswith(f"{registry.kind} 'x' of somebody 7.1 (somebody:X) {why}") and "\n" not in said
    assert [row.name for row in registry.origins() if row.problem == said] == ["x"]
    assert len(registry.values()) == len(registry) - 1


RAISES = """
    @field_validator('much')
    @classmethod
    def _much(cls, value):
        %s
"""


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("return {}[value]", "KeyError: 3"),
        ("raise TypeError('two\\nlines')", "TypeError: two lines"),
    ],
)
def test_a_validator_that_breaks_is_a_line(install, experiment, capsys, tmp_path, body, why):
    code = "class O(ToolOptions):\n    much: int = 3\n" + RAISES % body
    install({"x": "somebody:X"}, code=f"{HEAD}{code}class X(Tool):\n    name, options, run = 'x', O, print\n")
    (tmp_path / "x.yaml").write_text(
        'name: x\nrelease: "2025.1"\ntestbed: {kind: local}\nregions: [{name: OSR1}]\nbench: [{tool: x, much: 3}]\n'
    )
    said = call(capsys, "plan", str(tmp_path / "x.yaml"), "-o", str(tmp_path / "plan"))
    line = f"error: tool 'x' of somebody 7.1 (somebody:X) cannot read its keys: {why}; mend or uninstall it\n"
    assert said == (3, "", line)
    assert call(capsys, "schema")[0] == 0


def test_what_a_model_says_of_values_is_the_files_problem(install, experiment):
    code = "class O(ToolOptions):\n    much: int = 3\n" + RAISES % "raise ValueError('no such\\nanvil')"
    install({"x": "somebody:X"}, code=f"{HEAD}{code}class X(Tool):\n    name, options, run = 'x', O, print\n")
    with pytest.raises(InputError, match=r"bench\[0\]\.much: Value error, no such\\nanvil$"):
        with_tool(experiment, tool="x", much=3)


def test_a_fault_or_a_tool_that_cannot_be_made_is_a_line(install):
    body = "    def __init__(self, *_, **keys):\n        1 / 0\n"
    tool = "class X(Tool):\n    name, run = 'x', print\n" + body
    fault = "class Y(Fault):\n    name, acts, sight = 'y', print, print\n" + body
    site = install({"x": "somebody:X"}, code=HEAD + tool + fault)
    points = site / "somebody-7.1.dist-info" / "entry_points.txt"
    points.write_text(points.read_text() + "[mrkolla.faults]\ny = somebody:Y\n")
    with pytest.raises(LackError, match=r"tool 'x' of somebody 7.1 \(somebody:X\) cannot be made of its keys: ZeroDiv"):
        make_tool({"tool": "x"})
    asked = hold.entry({"do": "y", "region": "OSR1"})
    with pytest.raises(
        LackError, match=r"fault 'y' of somebody 7.1 \(somebody:Y\) cannot be made of its keys: ZeroDiv"
    ):
        hold.make(asked, None)


def test_a_tool_that_does_not_take_its_own_keys_is_told_before_there_are_hosts(
    install, experiment, tmp_path, monkeypatch
):
    monkeypatch.setattr(script.providers, "testbed", lambda kind: pytest.fail("hosts are asked for"))
    code = "class O(ToolOptions):\n    much: int = 3\nclass X(Tool):\n    name, options, run = 'x', O, print\n"
    install({"x": "somebody:X"}, code=HEAD + code)
    file = tmp_path / "demo.yaml"
    file.write_text(yaml.safe_dump(with_tool(experiment, tool="x", much=3).model_dump(mode="json")))
    with pytest.raises(InputError, match="bench: tool 'x' has no key 'much'"):
        script.up(file)


def test_one_that_ends_the_process_ends_no_verb(install, capsys):
    install({"x": "somebody:X"}, code="raise SystemExit(0)\n")
    assert '"oneOf"' in call(capsys, "schema")[1]
    assert "SystemExit" in call(capsys, "plugins", "--format", "json")[1]


@pytest.mark.parametrize("body", ["raise SystemExit(0)", "raise ValueError('two\\nlines')", "return None"])
def test_needs_that_break_are_a_finding(install, body):
    code = f"class X(Tool):\n    name, run = 'x', print\n    @classmethod\n    def needs(cls):\n        {body}\n"
    install({"x": "somebody:X"}, code=HEAD + code)
    [found] = [one for one in doctor.look() if "somebody" in one.what]
    assert (found.what, found.ok) == ("tool 'x' of somebody 7.1 (somebody:X)", False)
    assert "Error: " in found.seen or "SystemExit: 0" in found.seen
    assert "\n" not in found.seen


@pytest.mark.parametrize("body", ["raise SystemExit(0)", "raise ValueError('two\\nlines')", "return 3"])
def test_a_testbed_that_breaks_when_all_are_asked_is_a_line(install, capsys, own_cache, body):
    methods = "".join(
        f"    def {name}(self, cloud):\n        {body}\n" for name in ("seen", "has_remains", "is_others")
    )
    install({"a": "somebody:X"}, code=HEAD + BED.replace("'x'", "'a'") + methods + "X = X()\n", group="testbeds")
    for name in ("one", "two"):
        (own_cache / f"cloud-{name}").mkdir(parents=True)
    code, out, err = call(capsys, "status", "--format", "json")
    assert (code, [row["cloud"] for row in json.loads(out)["clouds"]]) == (0, ["one", "two"])
    [line] = err.splitlines()
    assert line.startswith("mrkolla: left out: testbed 'a' of somebody 7.1 (somebody:X), in seen: ")
    assert call(capsys, "destroy", "--name", "one")[0] == 0 and not (own_cache / "cloud-one").exists()
    code, _, err = call(capsys, "destroy", "--name", "three")
    if "raise" in body:
        assert code == 2 and err.splitlines()[-1].startswith("error: there is no cloud 'three'")


def test_a_cloud_whose_testbed_breaks_stays(install, own_cache):
    methods = "    def seen(self, cloud):\n        return {'h': True}\n    def destroy(self, cloud):\n        1 / 0\n"
    install({"x": "somebody:X"}, code=HEAD + BED + methods + "X = X()\n", group="testbeds")
    with pytest.raises(LackError, match=r"cloud 'one' stays: its testbed 'x' did not remove its hosts"):
        providers.destroy("one")
    assert providers.seen("one") == ("x", {"h": True}) and providers.paused("x", "one") == []


def test_a_wan_driver_that_breaks_is_not_chosen(install, monkeypatch, capsys):
    code = (
        "from mrkolla.wan.driver import Driver\nclass X(Driver):\n    name, rank = 'x', -1\n"
        "    start = stop = apply = read = problems = print\n    @classmethod\n    def lack(cls):\n        1 / 0\n"
    )
    install({"x": "somebody:X"}, code=code, group="wan_drivers")
    monkeypatch.setattr(Netem, "lack", lambda: None)
    assert choose("auto") is not plugins.WAN_DRIVERS["x"]
    assert "WAN driver 'x' of somebody 7.1 (somebody:X), in lack: ZeroDivisionError" in capsys.readouterr().err


def test_two_of_one_name_are_a_line_that_names_both(install, experiment, capsys):
    install({"probe": "somebody:Mine"})
    with pytest.raises(LackError) as refused:
        with_tool(experiment, tool="probe")
    said = str(refused.value)
    assert said.startswith("2 plug-ins are called tool 'probe', ") and said.endswith(": uninstall all but one")
    assert "mrkolla 0.1.0 (mrkolla.bench.probe:Probe)" in said and "somebody 7.1 (somebody:Mine)" in said
    assert with_tool(experiment, tool="middleware").bench[0].tool == "middleware"
    rows = json.loads(call(capsys, "plugins", "--format", "json")[1])["plugins"]
    assert [row["distribution"] for row in rows if row["name"] == "probe" and row["problem"] == said] == [
        row["distribution"] for row in rows if row["name"] == "probe"
    ]


def test_an_installation_older_than_its_code_says_so(monkeypatch):
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    with pytest.raises(LackError, match=r"no tool is registered, not even mrkolla's own: .*'pip install -e \.'"):
        list(plugins.Registry("tool", "mrkolla.tools.of-nobody", "mrkolla.bench:Tool", objects=False))


def test_nothing_is_loaded_that_is_not_used(tmp_path):
    """Reading an experiment loads its own plug-ins' options, and none of what hosts and load need."""
    (tmp_path / "x.yaml").write_text(
        'name: x\nrelease: "2025.1"\ntestbed: {kind: local}\nregions: [{name: OSR1}]\n'
        "bench: [{tool: probe}, {tool: middleware}, {tool: shaker}]\n"
    )
    code = "import sys; from mrkolla import config; config.load(sys.argv[1]); config.schema(); print(*sys.modules)"
    env = os.environ | {"PYTHONPATH": str(TOP)}
    argv = [sys.executable, "-c", code, str(tmp_path / "x.yaml")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True, env=env)
    loaded = set(done.stdout.split())
    assert not {"enoslib", "pandas", "pyarrow", "openstack", "ansible", "mrkolla.providers.local"} & loaded
    code = "import sys; from mrkolla.cli import main; main.parser('status'); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, env=env
    )
    assert "mrkolla.base.plugins" not in done.stdout.split(), "help asks for no plug-in"
