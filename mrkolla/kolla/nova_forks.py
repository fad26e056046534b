"""The fake computes of a host: Nova is loaded once, and each of them is a fork of that.

This one file stands in the container in place of nova-compute, and under that name, which its logs have. Each folder in
FOLDER is a fake compute, with the nova.conf and the compute_id of its own. What was loaded is never collected as
garbage, so that its pages stay shared. A compute that ends is started again, as Docker does with a container.
"""

import gc
import os
import random
import signal
import sys
import traceback

FOLDER, OWN = "/etc/nova/fakes", "/var/lib/nova/fakes"
APART_S, AGAIN_S = 0.2, 1.0


def load():
    """Load what a nova-compute with the fake driver needs; returns its main function."""
    import os_vif
    from nova import objects
    from nova.cmd import compute

    objects.register_all()
    os_vif.initialize()  # reads what all installed packages say of themselves
    for name in (
        "nova.compute.manager",
        "nova.image.glance",
        "nova.network.neutron",
        "nova.scheduler.client.report",
        "nova.virt.mrkolla_fake",
        "nova.volume.cinder",
        "oslo_messaging._drivers.impl_rabbit",
    ):
        __import__(name)
    return compute.main


def fork(name, main):
    """Start the fake compute called ``name``; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        from eventlet import hubs

        hubs.use_hub()  # a forked one would share its epoll with the others
        random.seed()
        own = f"{OWN}/{name}"
        os.makedirs(own + "/tmp", exist_ok=True)
        with open(own + "/own.conf", "w") as out:
            out.write(f"[DEFAULT]\nstate_path = {own}\n[oslo_concurrency]\nlock_path = {own}/tmp\n")
        sys.argv[1:] = ["--config-file", f"{FOLDER}/{name}/nova.conf", "--config-file", own + "/own.conf"]
        status = main() or 0
    except BaseException:  # noqa: BLE001 - nobody else would say why it ended
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def serve():
    """Have all of them run until told to end; returns the exit status."""
    main = load()
    from eventlet import patcher

    # Those that Nova has not replaced by what waits in its own way.
    system, time = patcher.original("os"), patcher.original("time")
    gc.collect()
    gc.freeze()
    running, ending = {}, []

    def end(number, _):
        ending.append(number)
        for pid in list(running):
            system.kill(pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    for name in sorted(os.listdir(FOLDER), key=int):
        if not ending:
            running[fork(name, main)] = name
            time.sleep(APART_S)
    while running:
        pid, _ = system.waitpid(-1, 0)
        name = running.pop(pid, None)
        if name is not None and not ending:
            time.sleep(AGAIN_S)
            if not ending:
                running[fork(name, main)] = name
    return 0


if __name__ == "__main__":
    sys.exit(serve())
