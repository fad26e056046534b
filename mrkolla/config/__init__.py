"""The experiment file: read, checked, typed. ``load("configs/two_regions.yaml")`` gives an :class:`Experiment`."""

from mrkolla.config.bench import TOOL_OPTIONS, ProbeOptions, ToolOptions
from mrkolla.config.load import from_dict, load, load_region, load_testbed
from mrkolla.config.model import Experiment, known_releases
from mrkolla.config.points import Point
from mrkolla.config.schema import schema
from mrkolla.config.sections import AdminRegion, Images, Keystone, Kolla, Region, Sweep, Wan, one_form
from mrkolla.config.testbeds import TESTBEDS, LocalTestbed, Testbed

__all__ = [
    "TESTBEDS",
    "TOOL_OPTIONS",
    "AdminRegion",
    "Experiment",
    "Images",
    "Keystone",
    "Kolla",
    "LocalTestbed",
    "Point",
    "ProbeOptions",
    "Region",
    "Sweep",
    "Testbed",
    "ToolOptions",
    "Wan",
    "from_dict",
    "known_releases",
    "load",
    "load_region",
    "load_testbed",
    "one_form",
    "schema",
]
