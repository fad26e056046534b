"""Runs on a host: a registry on the host's loopback that takes images, as long as standard input is open.

    python3 -IB -c CODE PORT

Prints {"ready": true} when it answers, {"error"} when it does not come up. Who may write is who may log in here: the
registry that the network sees has the same images and takes none.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time

FOLDER = "/var/lib/mrkolla-registry"
WAIT_S = 30


def say(**what):
    print(json.dumps(what), flush=True)


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except OSError:
        return False
    return True


def main(port):
    if answers(port):  # another program listens there, and would be given the images
        say(error=f"port {port} of its loopback is in use")
        return 1
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as config:
        settings = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": FOLDER}},
            "http": {"addr": f"127.0.0.1:{port}"},
        }
        json.dump(settings, config)  # JSON is YAML
        config.flush()
        with tempfile.TemporaryFile() as output:
            line = ["docker-registry", "serve", config.name]
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            try:
                end = time.monotonic() + WAIT_S
                while process.poll() is None and not answers(port) and time.monotonic() < end:
                    time.sleep(0.1)
                time.sleep(0.2)  # one that could not have the port ends at once
                if process.poll() is not None or not answers(port):
                    output.seek(0)
                    words = output.read().decode(errors="replace").strip().splitlines() or ["no word"]
                    say(error=f"the registry did not start: {words[-1][:300]}")
                    return 1
                say(ready=True)
                while os.read(0, 4096):
                    pass
            finally:
                process.terminate()
                process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
