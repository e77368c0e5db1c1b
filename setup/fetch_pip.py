"""Put pip into an environment that was made without it: `python fetch_pip.py ENVIRONMENT/bin/python`.

Debian and Ubuntu keep ensurepip in a package of its own (python3-venv), so that a plain `python3.11 -m venv` fails
there. Uses the pip of this interpreter where there is one, and otherwise downloads the wheel from the package index.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request

# In the index's page (PEP 503): address of a final release's wheel, its version, its SHA-256.
LINK = re.compile(r'href="([^"#]*/pip-([0-9.]+)-py3-none-any\.whl)#sha256=([0-9a-f]{64})"')


def download(address: str) -> tuple[str, bytes]:
    """Where the address led to, and what lay there."""
    request = urllib.request.Request(address, headers={"Accept": "text/html"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.url, answer.read()


def main(target: str) -> int:
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return subprocess.call([sys.executable, "-m", "pip", "--python", target, "install", "-q", "pip"])
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"
    page_address, page = download(index)
    links = LINK.findall(page.decode())
    address, _, digest = max(links, key=lambda link: tuple(int(part) for part in link[1].split(".")))
    _, wheel = download(urllib.parse.urljoin(page_address, address))
    if hashlib.sha256(wheel).hexdigest() != digest:
        print(f"error: {address} does not have the SHA-256 that {index} gives", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, os.path.basename(address))
        with open(path, "wb") as out:
            out.write(wheel)
        # A wheel is a zip file: the pip in it can install itself.
        return subprocess.call([target, os.path.join(path, "pip"), "install", "-q", "--no-index", path])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
