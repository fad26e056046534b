"""Packaging of mrkolla. What is not Python (systemd-nspawn, mmdebstrap, ...) is in mrkolla/system-packages.txt."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

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
        "mrkolla": ["browser-packages.txt", "system-packages.txt", "vagrant-packages.txt"],
        "mrkolla.bench": ["locks/*.txt"],
        "mrkolla.images": ["*.sh"],
        "mrkolla.kolla": ["*.cfg", "data/*.yaml", "library/*.py", "playbooks/*.yml"],
        "mrkolla.providers.prepare": ["*.yml", "*.j2"],
        "mrkolla.results": ["templates/*"],
    },
    install_requires=[
        "enoslib==10.9.0",
        "python-vagrant>=1.0,<2",
        "execo>=2.8.2,<3",
        "ansible-core>=2.17,<2.19",
        "pydantic>=2.7,<3",
        "pyyaml>=6",
        "rich>=12",
        "pandas>=3",
        "pyarrow>=16",
        "scipy>=1.13",
        "statsmodels>=0.14.4,<1",
        "matplotlib>=3.8",
        "jinja2>=3.1",
        "openstacksdk>=4,<5",
        "keystoneauth1>=5.6",
        "requests>=2.31",
        "cryptography>=42",
        "bcrypt>=4",
        "selenium>=4.25,<5",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "ruff==0.17.6",
            "jsonschema>=4.20",
            "nbformat>=5.10",
            "nbclient>=0.10",
            "ipykernel>=6.29",
        ],
    },
    entry_points={"console_scripts": ["mrkolla = mrkolla.cli:main"]},
)
