#!/bin/sh
# Installs airgap from this kit, offline, into a folder of its own. Changes nothing else.
#
#   sh install.sh SHEET [FOLDER]
#
# SHEET    airgap-fingerprints.txt, as it came to you on another way than this kit
# FOLDER   where airgap is to lie; /opt/airgap when left out
set -eu
umask 022

stop() {
    echo "install.sh: $1" >&2
    exit "$2"
}

[ $# -ge 1 ] || stop "usage: sh install.sh SHEET [FOLDER]" 2
[ -f "$1" ] || stop "there is no fingerprint sheet at $1" 2
sheet=$(CDPATH='' cd -- "$(dirname -- "$1")" && pwd)/$(basename -- "$1")
folder=${2:-/opt/airgap}
kit=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
python=$(command -v python3) || stop "python3 is not installed" 7
new=$folder.new
old=$folder.old

# An older airgap is replaced, anything else is left alone.
if [ -e "$folder" ] && [ ! -f "$folder/airgap.pyz" ]; then
    stop "$folder exists and holds no airgap: name another folder" 2
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    stop "airgap needs Python 3.10 or newer" 7

# 1. Copy what the sheet names, and nothing else; then check the copies, so that what was checked
#    is what runs.
rm -rf "$new"
mkdir -p "$(dirname -- "$new")"
mkdir "$new" # not -p: a folder that somebody else has put there is none of ours
while read -r digest name; do
    [ "${#digest}" -eq 64 ] || stop "$sheet is not a fingerprint sheet" 3
    case $name in /* | *..*) stop "$sheet names $name" 3 ;; esac
    [ -f "$kit/$name" ] || stop "the kit has no $name" 3
    mkdir -p "$new/$(dirname -- "$name")"
    cp "$kit/$name" "$new/$name"
done <"$sheet"
(cd "$new" && sha256sum --check --strict --quiet "$sheet") >&2 ||
    stop "the kit is not the one on the sheet; nothing was installed" 3
for name in airgap.pyz uv; do
    [ -f "$new/$name" ] || stop "the sheet names no $name" 3
done
chmod 755 "$new/uv"

# 2. The libraries for this Python, where the kit has them: by hash, from the kit, offline.
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ -f "$new/libraries-$version.txt" ]; then
    "$new/uv" pip install --quiet --offline --no-config --no-python-downloads --no-index \
        --cache-dir "$new/cache" --python "$python" --target "$new/lib" --link-mode copy \
        --no-deps --only-binary :all: --require-hashes --find-links "$new/wheels" \
        --requirement "$new/libraries-$version.txt" ||
        stop "the libraries do not fit this host: make the kit for it, or without libraries" 7
    rm -rf "$new/cache"
else
    echo "no libraries for Python $version in this kit: airgap runs without them"
fi
rm -rf "$new/wheels"

# 3. The program: this Python, airgap.pyz compiled for it, and the libraries beside it.
"$python" -IS "$new/airgap.pyz" compile "$new/compiled.pyz" ||
    stop "this Python cannot run airgap.pyz" 7
cat >"$new/airgap" <<END
#!$python -IS
import os.path, runpy, sys
here = os.path.dirname(os.path.realpath(__file__))
sys.path.append(os.path.join(here, "lib"))
sys.argv[0] = os.path.join(here, "compiled.pyz")
runpy.run_path(sys.argv[0], run_name="__main__")
END
chmod 755 "$new/airgap"
find "$new" -exec sync {} +

# 4. In its place. Killed in between, the same command again finishes.
rm -rf "$old"
[ ! -e "$folder" ] || mv "$folder" "$old"
mv "$new" "$folder"
rm -rf "$old"
echo "installed $folder"
[ ! -f "$folder/root.json" ] || echo "next      $folder/airgap trust add $folder/root.json"
