"""The only place that imports Open3D, whose wheel needs libusb-1.0, which a bare machine does not have."""

from __future__ import annotations

import ctypes
import functools
from types import ModuleType

from jaxvsr.errors import InputError


@functools.cache
def open3d() -> ModuleType:
    """Import Open3D, after loading libusb-1.0 from the wheel `libusb-package` so that Open3D's library finds it.

    Raises:
        InputError: one of the two is missing; has the install command.
    """
    try:
        import libusb_package

        library = libusb_package.get_library_path()
        if library is not None:
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        import open3d as module
    except (ImportError, OSError) as error:
        raise InputError(f"open3d cannot be imported ({error}); `pip install jaxvsr[scans]` installs it") from None
    return module
