#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Lays policyd down in a guest's root filesystem from an installed package or an unpacked archive, without source or Go:
#
#   portcullis-guest-install DESTDIR=tree [AGENT_POLICY=...] [VARIABLE=VALUE]... [check|uninstall]
#
# The variables are those of "make install", see docs/rootfs.md and share/portcullis/guest/images/rootfs/install.sh.
set -eu

prefix=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
verb=
for word; do
	case $word in
	-h | --help) sed -n '3,7s/^# \{0,1\}//p' "$0"; exit ;;
	[A-Z]*=*) export "${word?}" ;;
	check | uninstall) verb=$word ;;
	*) echo "portcullis-guest-install: $word is neither VARIABLE=VALUE nor check nor uninstall; see --help" >&2; exit 2 ;;
	esac
done
[ -n "${DESTDIR:-}" ] || { echo "portcullis-guest-install: DESTDIR=tree is missing; see --help" >&2; exit 2; }
export POLICYD="${POLICYD:-$prefix/bin/policyd}" INIT_SHIM="${INIT_SHIM:-$prefix/libexec/portcullis/init}" SBOM="${SBOM:-$prefix/share/portcullis/policyd.cdx.json}"
export POLICYCTL="${POLICYCTL:-$(command -v policyctl || :)}"
exec "$prefix/share/portcullis/guest/images/rootfs/install.sh" $verb
