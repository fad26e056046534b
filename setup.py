"""Packaging of mrkolla. What is not Python (systemd-nspawn, mmdebstrap, ...) is in mrkolla/system-packages.txt."""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
LINES = (HERE / "mrkolla" / "cli" / "start.txt").read_text(encoding="utf-8").splitlines()
#: What `mrkolla init` gives a person: files of the repository, which the wheel has in mrkolla/cli/start/.
START = [line for line in LINES if line and not line.startswith("#")]


class BuildWithStart(build_py):
    """Build the packages, with START's files among them; an editable install reads those of the repository."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for name in START:
            target = Path(self.build_lib, "mrkolla", "cli", "start", name)
            self.mkpath(str(target.parent))
            self.copy_file(str(HERE / name), str(target))

    def get_source_files(self):
        # What a source distribution has, from which a wheel can be built as well.
        return [*super().get_source_files(), *START]


setup(
    name="mrkolla",
    version="0.1.0",
    description="Enoslib-based experiment framework for scale testing of multi-region OpenStack, deployed with Kolla",
    long_description=(HERE / "README.md").read_text() if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["mrkolla", "mrkolla.*"]),
    package_data={
        "mrkolla": ["py.typed", "browser-packages.txt", "system-packages.txt", "vagrant-packages.txt"],
        "mrkolla.bench": ["locks/*.txt"],
        "mrkolla.cli": ["start.txt"],
        "mrkolla.images": ["*.sh", "toolbox-*.py"],
        "mrkolla.kolla": ["*.cfg", "data/*.yaml", "library/*.py", "playbooks/*", "strategy/*.py"],
        "mrkolla.providers.prepare": ["*.yml", "*.j2"],
        "mrkolla.results": ["*.csv", "templates/*"],
    },
    cmdclass={"build_py": BuildWithStart},
    install_requires=[
        "enoslib==10.9.0",
        "python-vagrant>=1.0,<2",
        "execo>=2.8.2,<3",
        "ansible-core>=2.17,<2.19",
        "pydantic>=2.7,<3",
        "pyyaml>=6",
        "rich>=12",
        "argcomplete>=3.5,<4",
        "pandas>=3",
        "pyarrow>=16",
        "scipy>=1.13",
        "matplotlib>=3.8",
        "jinja2>=3.1",
        "openstacksdk>=4,<5",
        "keystoneauth1>=5.6",
        "requests>=2.31",
        "cryptography>=42",
        "bcrypt>=4",
        "fastcrc>=0.3,<1",
        "uv>=0.5,<1",
        "selenium>=4.25,<5",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff==0.17.6",
            "import-linter>=2.1,<3",
            "mypy==2.4.1",
            "types-PyYAML>=6",
            "types-jsonschema>=4.20",
            "jsonschema>=4.20",
            "nbformat>=5.10",
            "nbclient>=0.10",
            "ipykernel>=6.29",
            "statsmodels>=0.14.4,<1",
        ],
        "docs": ["mkdocs-material>=9.7,<10", "mkdocstrings[python]>=1,<2", "grimp>=3.9,<4"],
    },
    # Plug-ins of mrkolla's own (mrkolla/base/plugins.py); a new one is seen once mrkolla is installed again.
    entry_points={
        "console_scripts": ["mrkolla = mrkolla.cli.main:main"],
        "mrkolla.testbeds": [
            "local = mrkolla.providers.builtin:LOCAL",
            "g5k = mrkolla.providers.builtin:G5K",
            "vagrant = mrkolla.providers.builtin:VAGRANT",
            "static = mrkolla.providers.builtin:STATIC",
        ],
        "mrkolla.tools": [
            "middleware = mrkolla.bench.middleware:Middleware",
            "probe = mrkolla.bench.probe:Probe",
            "rally = mrkolla.bench.rally:Rally",
            "shaker = mrkolla.bench.shaker:Shaker",
        ],
        "mrkolla.wan_drivers": [
            "netem = mrkolla.wan.netem:Netem",
            "nfqueue = mrkolla.wan.nfqueue:NfQueue",
        ],
        "mrkolla.faults": [
            "cut = mrkolla.faults.links:Cut",
            "degrade = mrkolla.faults.links:Degrade",
            "flap = mrkolla.faults.links:Flap",
            "freeze = mrkolla.faults.places:Freeze",
            "kill = mrkolla.faults.places:Kill",
            "restart = mrkolla.faults.places:Restart",
        ],
        "mrkolla.releases": [
            "2025.1 = mrkolla.kolla.releases:EPOXY",
            "2025.2 = mrkolla.kolla.releases:FLAMINGO",
            "2026.1 = mrkolla.kolla.releases:GAZPACHO",
            "newton = mrkolla.kolla.releases:NEWTON",
        ],
    },
)
