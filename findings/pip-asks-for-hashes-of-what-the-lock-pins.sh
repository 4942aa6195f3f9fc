#!/usr/bin/env bash
# finding: an older pip refuses a lock that pins everything, as soon as one package asks for another with an extra
# about: pip, as locks are written by uv and pip-tools (coverage==, without the extra, for pytest-cov's coverage[toml])
# guess: --require-hashes with a pin and hashes for every package installs what the lock says
# concerns: a lock that installs today stops to install when a newer release of that package appears, without a change of the lock
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check pip==25.2
"$python" -m pip download -qqq --disable-pip-version-check -d "$folder/wheels" \
    pytest-cov==4.1.0 coverage==7.4.0 pytest==7.4.4 pluggy==1.3.0 iniconfig==2.0.0 packaging==23.2
for wheel in "$folder"/wheels/*.whl; do
    name=$(basename "$wheel" | cut -d- -f1 | tr _ -)
    version=$(basename "$wheel" | cut -d- -f2)
    echo "$name==$version $("$python" -m pip hash "$wheel" | tail -n 1)"
done > "$folder/lock.txt"

# Whether this pip would install the lock, and its reason when it would not.
try() {
    "$python" -m pip install -qqq --disable-pip-version-check "pip==$1"
    if "$python" -m pip install --disable-pip-version-check --dry-run --require-hashes -r "$folder/lock.txt" > "$folder/log" 2>&1; then
        echo installs
    else
        grep -o 'all requirements must have their versions pinned with ==' "$folder/log" || cat "$folder/log" >&2
    fi
}

new=$(try 25.2)
old=$(try 23.2.1)
echo "pip 23.2.1, pip 25.2, pytest-cov 4.1.0, coverage 7.4.0"
cut -c 1-60 "$folder/lock.txt"
echo "guess: both install it"
echo "seen:  25.2: $new; 23.2.1: $old"
[ "$new" = installs ]
[ "$old" = 'all requirements must have their versions pinned with ==' ]
