"""A nursery for transfers that are killed: for each line ``ACT NUMBER`` it forks one and says how it ended.

``deliver`` and ``fetch`` die at a call of the store, ``write`` dies in a fetch with half a segment written. Forking
spares each one the time of its imports.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from delivery_world import Store, deliver, die, dies_at, open_store

from stanch.crypto import VerifyKey
from stanch.release import FetchParams, RemoteBundle, fetch
from stanch.seal import VolatileReleases
from stanch.sign import TrustedKeys


def die_half_written(number):
    real, count = os.pwrite, [0]

    def pwrite(handle, data, offset):
        count[0] += 1
        if count[0] >= number:
            real(handle, data[: len(data) // 2], offset)
            die()
        return real(handle, data, offset)

    os.pwrite = pwrite


def transfer(act, number, place):
    bundle, store, dest, trusted, bundle_id = place
    blobs = open_store(store)
    if act == "write":
        die_half_written(number)
    else:
        blobs = Store(blobs, before=dies_at(number))
    if act == "deliver":
        deliver(bundle, blobs, trusted)
    else:
        remote = RemoteBundle(blobs, "file:here", bundle_id)
        fetch(remote, dest, trusted, memory=VolatileReleases(), params=FetchParams(workers=2))


def main(bundle, store, dest, pem, bundle_id):
    trusted = TrustedKeys((VerifyKey.from_pem(Path(pem).read_bytes(), what="publisher"),))
    place = (Path(bundle), store, Path(dest), trusted, bundle_id)
    for line in sys.stdin:
        act, number = line.split()
        child = os.fork()
        if child == 0:
            transfer(act, int(number), place)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        said = "killed" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
        os.write(sys.stdout.fileno(), f"{said}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
