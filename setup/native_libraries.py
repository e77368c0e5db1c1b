"""Give Open3D the system libraries that it links to: `ENVIRONMENT/bin/python native_libraries.py`.

Open3D's wheel expects libusb, libGL, libEGL and libX11 of the system, which servers and containers often lack. libusb
comes with the wheel `libusb-package`, for whoever imports Open3D: TensorBoard does, for its plugin. What else is
missing is taken from the distribution's own packages with `apt-get download`, which needs no root. All of it is put
into ENVIRONMENT/lib, where Open3D looks first (its RPATH). The system itself is left as it is.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Each library with the Debian and Ubuntu packages that it needs beyond a minimal system.
PACKAGES = {
    "libGL.so.1": ("libgl1", "libglvnd0", "libglx0"),
    "libEGL.so.1": ("libegl1", "libglvnd0"),
    "libX11.so.6": ("libx11-6", "libxcb1", "libxau6", "libxdmcp6", "libbsd0", "libmd0"),
    "libxcb.so.1": ("libxcb1", "libxau6", "libxdmcp6", "libbsd0", "libmd0"),
    "libudev.so.1": ("libudev1",),
    "libidn2.so.0": ("libidn2-0",),
    "libgomp.so.1": ("libgomp1",),
}

LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"


def missing_library(open3d: str) -> str | None:
    """The first library that the loader does not find, or None when Open3D loads."""
    load = subprocess.run([sys.executable, "-c", LOAD, open3d], capture_output=True, text=True)
    if load.returncode == 0:
        return None
    found = re.search(r"OSError: (\S+): cannot open shared object file", load.stderr)
    return found.group(1) if found else load.stderr.strip().splitlines()[-1]


def fetch(packages: tuple[str, ...], target: Path) -> None:
    """Download Debian packages with a private apt state and copy their libraries to `target`."""
    with tempfile.TemporaryDirectory() as folder:
        for part in ("lists/partial", "cache/archives/partial"):
            os.makedirs(os.path.join(folder, part))
        apt = ["apt-get", "-q", "-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
        if os.geteuid() == 0:
            apt += ["-o", "APT::Sandbox::User=root"]  # the private folder is root's own
        subprocess.run([*apt, "update"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*apt, "download", *packages], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        for package in glob.glob(os.path.join(folder, "*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, os.path.join(folder, "root")], check=True)
        for library in Path(folder, "root").rglob("*.so.*"):
            shutil.copy2(library, target / library.name, follow_symlinks=True)


def main() -> int:
    open3d = importlib.util.find_spec("open3d")
    libusb = importlib.util.find_spec("libusb_package")
    if open3d is None or open3d.origin is None or libusb is None or libusb.origin is None:
        return 0  # installed without the `scans` extra
    binding = glob.glob(os.path.join(os.path.dirname(open3d.origin), "pybind*.so"))
    libraries = glob.glob(os.path.join(os.path.dirname(libusb.origin), "libusb-1.0.so*"))
    if not binding or not libraries:
        return 0  # another system's layout
    shutil.copyfile(libraries[0], Path(sys.prefix, "lib", "libusb-1.0.so.0"))
    fetched: set[str] = set()
    while (library := missing_library(binding[0])) is not None:
        if library not in PACKAGES or library in fetched:
            print(f"error: Open3D does not load: {library}", file=sys.stderr)
            return 2
        print(f"taking {library} from the distribution's packages, into {sys.prefix}/lib")
        try:
            fetch(PACKAGES[library], Path(sys.prefix, "lib"))
        except (OSError, subprocess.CalledProcessError):
            names = "libgl1 libegl1 libx11-6 libudev1 libidn2-0 libgomp1"
            print(f"error: Open3D needs {library}; on Debian and Ubuntu: apt-get install {names}", file=sys.stderr)
            return 2
        fetched.add(library)
    return 0


if __name__ == "__main__":
    sys.exit(main())
