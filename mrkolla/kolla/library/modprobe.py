#!/usr/bin/python
"""Stands before community.general.modprobe where a kernel has no loadable modules.

That module reads /proc/modules, which such a kernel does not have: all is built in, so there is nothing to load.
"""

import os

from ansible.module_utils.basic import AnsibleModule


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"required": True},
            "params": {"default": ""},
            "state": {"default": "present", "choices": ["present", "absent"]},
            "persistent": {"default": "disabled", "choices": ["disabled", "present", "absent"]},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    if not os.path.exists("/proc/modules"):
        module.exit_json(
            changed=False, name=parameters["name"], state=parameters["state"], msg="kernel without modules"
        )
    command = ["modprobe"] + (["-r"] if parameters["state"] == "absent" else []) + [parameters["name"]]
    with open("/proc/modules") as modules:
        loaded = parameters["name"].replace("-", "_") in [line.split()[0] for line in modules]
    if loaded == (parameters["state"] == "present") or module.check_mode:
        module.exit_json(changed=False, name=parameters["name"], state=parameters["state"])
    status, _, err = module.run_command(command + parameters["params"].split())
    if status != 0:
        module.fail_json(msg=err.strip() or "modprobe failed", rc=status, name=parameters["name"])
    module.exit_json(changed=True, name=parameters["name"], state=parameters["state"])


if __name__ == "__main__":
    main()
