#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the overlay twice, the second time from a copy of the source elsewhere, and compares. COLD=yes gives that one an empty
# build cache too, which takes minutes.
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
epoch=$(git -C "$here" log -1 --format=%ct)
version=$(git -C "$here" describe --tags --always --dirty)
mkdir "$work/source"
(cd "$here" && git ls-files -z | xargs -0 cp --parents -t "$work/source")

build() { # DIRECTORY BUILD
	[ -e "$1/Makefile" ] && makefile=Makefile || makefile=images/rootfs/rootfs.mk
	make -s -C "$1" -f "$makefile" overlay BUILD="$2" SOURCE_DATE_EPOCH="$epoch" VERSION="$version"
}

build "$here" "$work/first"
[ "${COLD:-no}" = no ] || export GOCACHE="$work/cache"
build "$work/source" "$work/second"
for file in policyd portcullis-init policyd.cdx.json portcullis-overlay.tar; do
	cmp "$work/first/$file" "$work/second/$file"
	sha256sum "$work/first/$file" | sed "s|$work/first/||"
done
echo "two builds gave the same bytes"
