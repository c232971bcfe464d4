#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Boots guests with policyd in QEMU and runs the tests in them: "make guest-test". It needs root on Debian or Ubuntu, and
# installs what is missing. Downloads and builds are kept in BUILD/guest.
set -eu

cd "$(dirname "$0")/../../.."
BUILD=$(realpath -m "${BUILD:-build}")
out=$BUILD/guest
mkdir -p "$out"

say() { echo "guest-test: $*"; }

tools() {
	missing=
	for pair in qemu-system-x86_64=qemu-system-x86 swtpm=swtpm mmdebstrap=mmdebstrap cpio=cpio mkfs.ext4=e2fsprogs; do
		command -v "${pair%%=*}" >/dev/null || missing="$missing ${pair#*=}"
	done
	[ -z "$missing" ] && return
	say "installing$missing"
	apt-get update -qq
	# shellcheck disable=SC2086 # a list of words
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# kernel unpacks the kernel that linux-image-cloud-amd64 stands for; it is not installed.
kernel() {
	[ -e "$out/vmlinuz" ] && return
	package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image-/ {print $2; exit}')
	[ -n "$package" ] || { apt-get update -qq; package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ {print $2; exit}'); }
	say "kernel $package"
	rm -rf "$out/kernel"
	mkdir -p "$out/kernel"
	(cd "$out/kernel" && apt-get download -qq "$package" 2>/dev/null && dpkg-deb -x ./*.deb .)
	rm -rf "$out/modules"
	mv "$out/kernel/lib/modules" "$out/modules"
	cp "$out"/kernel/boot/vmlinuz-* "$out/vmlinuz"
}

# base makes the Debian tree: systemd and what it needs.
base() {
	[ -e "$out/base.tar" ] && return
	say "Debian tree"
	mmdebstrap --quiet --format=tar --variant=essential --include=systemd-sysv --aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		bookworm "$out/base.tar.new"
	mv "$out/base.tar.new" "$out/base.tar"
}

binaries() {
	say "binaries"
	make -s guest-binaries BUILD="$out" # what is tested is what is installed
	here=./images/rootfs/guesttest
	build="go build -trimpath -buildvcs=false"
	$build -o "$out/policyctl" ./cmd/policyctl
	CGO_ENABLED=0 $build -ldflags='-s -w' -o "$out/kata-agent" $here/agent
	CGO_ENABLED=0 $build -ldflags='-s -w' -o "$out/stage1" $here/stage1
	CGO_ENABLED=0 go test -c -trimpath -buildvcs=false -ldflags='-s -w' -o "$out/guest.test" $here/guest
}

[ "$(id -u)" = 0 ] || { say "must be root"; exit 1; }
began=$(date +%s)
tools
kernel
base
binaries
say "prepared in $(($(date +%s) - began)) s"
for package in ./images/rootfs ./images/rootfs/guesttest; do # one at a time, so that each result is seen when it is there
	PORTCULLIS_GUEST=$out go test -count=1 -timeout 40m -v $package "$@"
done
say "done in $(($(date +%s) - began)) s"
