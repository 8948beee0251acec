#!/bin/bash
# Build the image from a base made here, and run the main job in it. Needs root, buildah, debootstrap; takes a minute or two.
#
#   deploy/check_image.sh [FOLDER]     keeps base and layers in FOLDER for the next time (default: a fresh one, removed again)
#   TOPOLOGY=tiny deploy/check_image.sh
#
# Exit status 75: there is no base to build on (debootstrap reached no mirror); 1 and 2: the image, or how this was called.
set -euo pipefail
cd "$(dirname "$0")/.."

for program in buildah debootstrap; do
    command -v "$program" >/dev/null || { echo "check_image: needs $program: apt-get install $program" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "check_image: needs root, for debootstrap and chroot" >&2; exit 2; }

topology=${TOPOLOGY:-rdn2cfg1}
if [ $# -gt 0 ]; then
    work=$1
    mkdir -p "$work"
else
    work=$(mktemp -d)
    trap 'rm -rf --one-file-system "$work"' EXIT
fi
work=$(realpath "$work")
base=localhost/debian:bookworm-slim
image=localhost/cosim:check
# One driver in all calls: storage that one driver wrote is unknown to another. vfs works in any kernel and container.
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
build() { buildah --root "$work/storage" --runroot "$work/runroot" "$@"; }

if ! build inspect --type image "$base" >/dev/null 2>&1; then
    echo "== base: debootstrap"
    [ -e "$work/rootfs.tar" ] || {
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/rootfs" \
            >"$work/debootstrap.log" 2>&1 || {
            tail -5 "$work/debootstrap.log" >&2
            echo "check_image: no base: debootstrap must reach a mirror of Debian's packages" >&2
            exit 75
        }
        rm -rf "$work"/rootfs/var/cache/apt/archives/*.deb "$work"/rootfs/var/lib/apt/lists/*
        tar -C "$work/rootfs" -cf "$work/rootfs.tar" .
        rm -rf --one-file-system "$work/rootfs"
    }
    printf 'FROM scratch\nADD rootfs.tar /\n' >"$work/Base"
    build bud --quiet -t "$base" -f "$work/Base" "$work" >/dev/null
fi

echo "== wheels, by the host's pip and its own configuration"
mkdir -p "$work/wheels"
python=${PYTHON:-python3}
for file in run metrics; do
    "$python" -m pip download --quiet --require-hashes --only-binary :all: --python-version 3.11 \
        --dest "$work/wheels" -r "requirements/$file.txt"
done

echo "== image"
build bud --quiet --pull-never --build-arg BASE="$base" --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/wheels \
    --volume "$work/wheels:/wheels:ro" -t "$image" -f deploy/Containerfile . >/dev/null

echo "== run: $topology as a user without rights in the image, and here"
container=$(build from --pull-never "$image")
result=$(build run "$container" -- cosim up "$topology" --json)
who=$(build run "$container" -- id -u)
build rm "$container" >/dev/null
here=$(PYTHONPATH=. "$python" -m cosim up "$topology" --workers 0 --run-dir "$work/run-$$" --json)
[ "$who" = 10001 ] || { echo "check_image: must run as uid 10001, not $who" >&2; exit 1; }
"$python" - "$result" "$here" <<'END'
import json, sys

image, here = map(json.loads, sys.argv[1:])
for name in ("status", "digest"):
    if image[name] != here[name] or image["status"] != "passed":
        sys.exit(f"check_image: {name} must be {here[name]}, as outside the image, not {image[name]}")
print(f"check_image: passed in {image['workers']} processes, digest {image['digest']}")
END
