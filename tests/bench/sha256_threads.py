"""The yardstick of `airgap verify`: SHA-256 of every file of a folder on all cores, nothing else.

argv: FOLDER
"""

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor


def digest(path: str) -> str:
    """SHA-256 of one file, as the standard library does it."""
    found = hashlib.sha256()
    buffer = memoryview(bytearray(4 << 20))
    with open(path, "rb", buffering=0) as f:
        while count := f.readinto(buffer):
            found.update(buffer[:count])
    return found.hexdigest()


def main() -> None:
    """Print the digests."""
    paths = [e.path for e in os.scandir(sys.argv[1])]
    paths.sort(key=os.path.getsize, reverse=True)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for path, found in zip(paths, pool.map(digest, paths), strict=True):
            print(found, path)


if __name__ == "__main__":
    main()
