#!/bin/sh
# Makes a Python environment and installs jaxvsr into it, from this checkout.
#
#   sh setup/environment.sh .venv scans          what the demo needs (no torch)
#   sh setup/environment.sh .venv test           that, and what the tests and the documentation need
#   sh setup/environment.sh .venv docs           what the documentation needs
#   sh setup/environment.sh .venv check          nothing; an error if .venv has another Python than PYTHON
#
# PYTHON=... chooses the interpreter. Nothing outside the environment's folder is changed.
set -eu

environment=$1
extras=$2
export PIP_DISABLE_PIP_VERSION_CHECK=1

fail() {
    echo "error: $*" >&2
    exit 2
}

fits() { # is $1 a working Python that jaxvsr runs on?
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

if [ -n "${PYTHON:-}" ]; then
    fits "$PYTHON" || fail "PYTHON=$PYTHON is not a working Python 3.11, 3.12 or 3.13"
    version='import sys; print("%d.%d" % sys.version_info[:2])'
    if [ -x "$environment/bin/python" ] && [ "$("$environment/bin/python" -c "$version")" != "$("$PYTHON" -c "$version")" ]; then
        fail "$environment has another Python than PYTHON=$PYTHON; remove it to make it anew"
    fi
elif [ "$extras" != check ]; then
    for PYTHON in python3.11 python3.12 python3.13 python3 ""; do
        [ -n "$PYTHON" ] || fail "no Python 3.11, 3.12 or 3.13 found; on Debian and Ubuntu: apt-get install python3.11 python3.11-venv"
        fits "$PYTHON" && break
    done
fi

[ "$extras" != check ] || exit 0

# The environment itself. Debian and Ubuntu ship Python without ensurepip: then pip comes from elsewhere.
if ! "$environment/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "making $environment with $("$PYTHON" --version)"
    if ! "$PYTHON" -m venv --clear "$environment" >/dev/null 2>&1; then
        "$PYTHON" -m venv --clear --without-pip "$environment" ||
            fail "$PYTHON cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"
        "$PYTHON" setup/fetch_pip.py "$environment/bin/python" ||
            fail "this Python has no ensurepip, and pip could not be fetched; on Debian and Ubuntu: apt-get install python3-venv"
    fi
fi
python=$environment/bin/python

# Bytecode of what nobody imports is most of the bytecode: where many more packages are installed than are used, Python
# writes it when it is needed. For a command's first start it is there.
compile=--no-compile
[ "$extras" != scans ] || compile=--compile

case ,$extras, in
*,test,*)
    # torch's CPU build is a tenth of the other one. Where pip is not set up to find it, PyTorch's own index has it.
    echo "installing torch 2.13.0 for the tests"
    "$python" -m pip install -qq $compile "torch==2.13.0+cpu" 2>/dev/null ||
        "$python" -m pip install -qq $compile "torch==2.13.0" --index-url https://download.pytorch.org/whl/cpu --retries 1 2>/dev/null ||
        "$python" -m pip install -qq $compile "torch==2.13.0" || fail "torch 2.13.0 could not be installed: see above"
    ;;
esac

echo "installing jaxvsr[$extras] into $environment (one to three minutes)"
PYTHONWARNINGS=ignore "$python" -m pip install -qq $compile --editable ".[$extras]" || fail "pip could not install jaxvsr[$extras]: see above"
"$python" setup/native_libraries.py
