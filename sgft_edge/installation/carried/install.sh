#!/bin/sh
# Checks what lies here and installs it into env/, with no network. PYTHON names the interpreter, else python3.
set -eu
cd -- "$(dirname -- "$0")"

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

if command -v sha256sum > /dev/null; then check="sha256sum"; else check="shasum -a 256"; fi
$check -c SHA256SUMS > /dev/null 2>&1 || {
    $check -c SHA256SUMS 2>&1 | grep -v ': OK$' >&2 || true
    fail "expected the files that SHA256SUMS names, found others: copy the bundle again"
}
python=${PYTHON:-python3}
command -v "$python" > /dev/null || fail "expected Python @TARGET@, found no $python: name an interpreter in PYTHON"
asked='import platform, sys; print("%d.%d %s %s" % (*sys.version_info[:2], sys.platform, platform.machine()))'
found=$("$python" -c "$asked")
[ "$found" = "@TARGET@" ] || fail "expected Python @TARGET@, found $found: name another interpreter in PYTHON"
if [ -f env/installed ] && cmp -s env/installed SHA256SUMS; then exit 0; fi

rm -rf env
"$python" -m venv env || fail "expected Python's venv module, found none that works: on Debian, install python3-venv"
env/bin/python -m pip install --quiet --no-index --no-cache-dir --disable-pip-version-check \
    --find-links wheels --require-hashes --requirement requirements.txt || fail "the wheels could not be installed"
cp SHA256SUMS env/installed # last, so that an installation that was cut off is made anew
