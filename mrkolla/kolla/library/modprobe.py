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
    wanted = module.params
    if not os.path.exists("/proc/modules"):
        module.exit_json(changed=False, name=wanted["name"], state=wanted["state"], msg="kernel without modules")
    command = ["modprobe"] + (["-r"] if wanted["state"] == "absent" else []) + [wanted["name"]]
    with open("/proc/modules") as modules:
        loaded = wanted["name"].replace("-", "_") in [line.split()[0] for line in modules]
    if loaded == (wanted["state"] == "present") or module.check_mode:
        module.exit_json(changed=False, name=wanted["name"], state=wanted["state"])
    status, _, err = module.run_command(command + wanted["params"].split())
    if status != 0:
        module.fail_json(msg=err.strip() or "modprobe failed", rc=status, name=wanted["name"])
    module.exit_json(changed=True, name=wanted["name"], state=wanted["state"])


if __name__ == "__main__":
    main()
