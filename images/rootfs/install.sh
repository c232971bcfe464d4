#!/bin/sh
# Lays policyd and all it needs down in a guest's root filesystem. "make install" calls it with these variables:
#
#   DESTDIR             root of the filesystem
#   POLICYD, INIT_SHIM  binaries to install; INIT_SHIM for AGENT_INIT=yes
#   SBOM                list of what is in policyd, optional
#   AGENT_POLICY        yes (default); no installs nothing
#   AGENT_POLICY_DEBUG  yes writes every request to /tmp/policy.txt; default no
#   AGENT_POLICY_FILE   default policy, in place of the one that BINDING calls for
#   AGENT_INIT          yes for a guest without systemd whose PID 1 is the agent; default no
#   BINDING             required (default) or auto
#   TPM_TRUST           azure-paravisor, svsm, asserted or empty (default): who keeps the TPM from the host
#   PEERPOD             no (default), or how PCR 8 gets the digest of initdata in a peer-pod image: extend or check
#   KATA_AGENT          the agent's path in the guest
set -eu

here=$(cd "$(dirname "$0")" && pwd)
: "${DESTDIR:?names the root filesystem}"
AGENT_POLICY=${AGENT_POLICY:-yes} AGENT_POLICY_DEBUG=${AGENT_POLICY_DEBUG:-no} AGENT_INIT=${AGENT_INIT:-no}
BINDING=${BINDING:-required} TPM_TRUST=${TPM_TRUST:-} PEERPOD=${PEERPOD:-no}

die() { echo "install portcullis: $*" >&2; exit 1; }

one_of() { # NAME VALUE WORD...
	name=$1 value=$2
	shift 2
	for word; do [ "$value" = "$word" ] && return; done
	die "$name=$value: want one of: $*"
}

put() { # MODE FILE PATH
	mkdir -p "$DESTDIR$(dirname "$3")"
	install -m "$1" "$2" "$DESTDIR$3"
}

fill() { # FILE PATH SED-EXPRESSION...
	file=$1 path=$2
	shift 2
	mkdir -p "$DESTDIR$(dirname "$path")"
	sed "$@" "$file" >"$DESTDIR$path"
	chmod 644 "$DESTDIR$path"
}

link() { # TARGET PATH
	mkdir -p "$DESTDIR$(dirname "$2")"
	ln -sfn "$1" "$DESTDIR$2"
}

configuration() {
	mode=$BINDING listen=vsock://-1:1024 initdata=auto preextended=false
	note="Off: what it writes holds the secrets of the workload." log=
	[ "$AGENT_POLICY_DEBUG" = yes ] && note="DEBUG BUILD: requests are written to a file with the secrets of the workload." log=/tmp/policy.txt
	[ "$PEERPOD" = no ] || listen=unix:///run/portcullis/gate.sock initdata=/run/peerpod/initdata
	[ "$PEERPOD" = check ] && preextended=true
	fill "$here/etc/config.toml.in" /etc/portcullis/config.toml \
		-e "s|@LISTEN@|$listen|" -e "s|@MODE@|$mode|" -e "s|@INITDATA@|$initdata|" -e "s|@TPM_TRUST@|$TPM_TRUST|" \
		-e "s|@PREEXTENDED@|$preextended|" -e "s|@DEBUG_NOTE@|$note|" -e "s|@DEBUG_LOG@|$log|"
	put 644 "$here/etc/agent.toml" /etc/portcullis/agent.toml
	default=deny-all-but-setpolicy
	[ "$BINDING" = auto ] && default=allow-all
	put 644 "${AGENT_POLICY_FILE:-$here/../../rules/default/$default.rego}" /etc/portcullis/default-policy.rego
	put 644 "$here/../../rules/default/allow-all.rego" /etc/portcullis/agent-policy.rego
}

units() {
	units=/usr/lib/systemd/system
	put 644 "$here/systemd/policyd.service" $units/policyd.service
	fill "$here/systemd/kata-agent.conf" $units/kata-agent.service.d/10-portcullis.conf -e "s|@AGENT@|$KATA_AGENT|"
	put 644 "$here/systemd/tmpfiles.conf" /usr/lib/tmpfiles.d/portcullis.conf
	put 644 "$here/systemd/modules.conf" /usr/lib/modules-load.d/portcullis.conf
	target=kata-containers
	[ "$PEERPOD" = no ] || target=multi-user
	link ../policyd.service $units/$target.target.wants/policyd.service
	[ "$AGENT_POLICY_DEBUG" = no ] || put 644 "$here/systemd/debug.conf" $units/policyd.service.d/10-debug.conf
}

peerpod_units() {
	put 644 "$here/peerpod/forwarder.conf" /usr/lib/systemd/system/agent-protocol-forwarder.service.d/10-portcullis.conf
	put 644 "$here/peerpod/forwarder-path.conf" /usr/lib/systemd/system/agent-protocol-forwarder.path.d/10-portcullis.conf
	[ "$PEERPOD" = check ] || put 644 "$here/peerpod/user-data.conf" /usr/lib/systemd/system/process-user-data.service.d/20-portcullis.conf
}

# init_shim makes the shim PID 1. osbuilder moves the agent to /sbin/init; it goes back to where the shim starts it from.
init_shim() {
	put 755 "$INIT_SHIM" /usr/libexec/portcullis/init
	sbin=/sbin
	[ -L "$DESTDIR/sbin" ] && sbin=/usr/sbin
	init=$DESTDIR$sbin/init
	if [ -f "$init" ] && [ ! -L "$init" ] && [ ! -e "$DESTDIR$KATA_AGENT" ]; then
		mkdir -p "$DESTDIR$(dirname "$KATA_AGENT")"
		mv "$init" "$DESTDIR$KATA_AGENT"
	fi
	link /usr/libexec/portcullis/init $sbin/init
}

one_of AGENT_POLICY "$AGENT_POLICY" yes no
one_of AGENT_POLICY_DEBUG "$AGENT_POLICY_DEBUG" yes no
one_of AGENT_INIT "$AGENT_INIT" yes no
one_of BINDING "$BINDING" required auto
one_of TPM_TRUST "$TPM_TRUST" "" azure-paravisor svsm asserted
one_of PEERPOD "$PEERPOD" no extend check
if [ "$AGENT_POLICY" = no ]; then
	echo "install portcullis: AGENT_POLICY=no, nothing is installed"
	exit 0
fi
: "${POLICYD:?names the binary to install}"
KATA_AGENT=${KATA_AGENT:-/usr/bin/kata-agent}
[ "$AGENT_INIT" = no ] || [ "$KATA_AGENT" = /usr/bin/kata-agent ] || die "AGENT_INIT=yes starts /usr/bin/kata-agent"
umask 022
put 755 "$POLICYD" /usr/bin/policyd
[ -z "${SBOM:-}" ] || put 644 "$SBOM" /usr/share/portcullis/policyd.cdx.json
configuration
if [ "$AGENT_INIT" = yes ]; then
	: "${INIT_SHIM:?names the init shim to install}"
	init_shim
else
	units
	[ "$PEERPOD" = no ] || peerpod_units
fi
