#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
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
#   PEERPOD_GATE        front (default) of the forwarder, which acts on requests before it passes them on, or behind it
#   PEERPOD_TLS         certificates for front: the forwarder's configuration (default /run/peerpod/daemon.json), or CERTIFICATE:KEY:CLIENT_CA
#   KATA_AGENT          the agent's path in the guest
#   REST                HOST:PORT on which agents of the sidecar era ask, such as 127.0.0.1:8181; default none. Needs systemd
#
# With the argument "check" it changes nothing: it says whether all that it would lay down is in DESTDIR, for images that are made
# of a fixed list of files.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
: "${DESTDIR:?names the root filesystem}"
AGENT_POLICY=${AGENT_POLICY:-yes} AGENT_POLICY_DEBUG=${AGENT_POLICY_DEBUG:-no} AGENT_INIT=${AGENT_INIT:-no}
BINDING=${BINDING:-required} TPM_TRUST=${TPM_TRUST:-} PEERPOD=${PEERPOD:-no} REST=${REST:-}
PEERPOD_GATE=${PEERPOD_GATE:-front} PEERPOD_TLS=${PEERPOD_TLS:-/run/peerpod/daemon.json}

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

# known_init says whether PID 1 of the tree is one that this script knows how to get on with; what is there is in $init.
known_init() { # WORD...
	for path in /sbin/init /usr/sbin/init; do
		[ -e "$DESTDIR$path" ] || [ -L "$DESTDIR$path" ] || continue
		init=$path
		[ ! -L "$DESTDIR$path" ] || init=$(readlink "$DESTDIR$path")
		for word; do [ "$(basename "$init")" = "$word" ] && return; done
		return 1
	done
}

configuration() {
	mode=$BINDING listen=vsock://-1:1024 agent=unix:///run/portcullis/agent.sock tls=/@TLS@/d initdata=auto preextended=false
	note="Off: what it writes holds the secrets of the workload." log=
	[ "$AGENT_POLICY_DEBUG" = yes ] && note="DEBUG BUILD: requests are written to a file with the secrets of the workload." log=/tmp/policy.txt
	[ "$PEERPOD" = no ] || listen=unix:///run/portcullis/gate.sock initdata=/run/peerpod/initdata
	! in_front || peerpod_front
	[ "$PEERPOD" = check ] && preextended=true
	fill "$here/etc/config.toml.in" /etc/portcullis/config.toml \
		-e "s|@LISTEN@|$listen|" -e "s|@AGENT@|$agent|" -e "$tls" -e "s|@MODE@|$mode|" -e "s|@INITDATA@|$initdata|" -e "s|@TPM_TRUST@|$TPM_TRUST|" \
		-e "s|@PREEXTENDED@|$preextended|" -e "s|@DEBUG_NOTE@|$note|" -e "s|@DEBUG_LOG@|$log|" -e "s|@REST@|$REST|"
	level=error
	[ "$AGENT_POLICY_DEBUG" = yes ] && level=info
	fill "$here/etc/agent.toml.in" /etc/portcullis/agent.toml -e "s|@AGENT_LOG@|$level|"
	default=deny-all-but-setpolicy
	[ "$BINDING" = auto ] && default=allow-all
	put 644 "${AGENT_POLICY_FILE:-$here/../../rules/default/$default.rego}" /etc/portcullis/default-policy.rego
	put 644 "$here/../../rules/default/allow-all.rego" /etc/portcullis/agent-policy.rego
}

in_front() { [ "$PEERPOD" != no ] && [ "$PEERPOD_GATE" = front ]; }

# peerpod_front sets what the configuration says of a gate in front of the forwarder.
peerpod_front() {
	listen=tls://0.0.0.0:15150 agent=tcp://127.0.0.1:15151
	case $PEERPOD_TLS in
	*:*:*)
		rest=${PEERPOD_TLS#*:}
		tls="s|@TLS@|tls = { certificate = \"${PEERPOD_TLS%%:*}\", key = \"${rest%%:*}\", client_ca = \"${rest#*:}\" }|"
		;;
	*) tls="s|@TLS@|tls = { forwarder = \"$PEERPOD_TLS\" }|" ;;
	esac
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
	close_units
	if [ -n "$REST" ]; then
		fill "$here/systemd/rest.socket.in" $units/policyd-rest.socket -e "s|@REST@|$REST|"
		put 644 "$here/systemd/rest.conf" $units/policyd.service.d/10-rest.conf
	fi
	[ "$AGENT_POLICY_DEBUG" = yes ] || return 0
	put 644 "$here/systemd/debug.conf" $units/policyd.service.d/10-debug.conf
	put 644 "$here/systemd/debug-agent.conf" $units/kata-agent.service.d/20-portcullis-debug.conf
}

# close_units closes what systemd would take from the host: credentials, and images that are laid over /usr and /etc.
close_units() {
	# systemd before 254 does not know ImportCredential=, and says so for each unit.
	old=
	for lib in "$DESTDIR"/usr/lib/systemd/libsystemd-shared-25[0-3]*.so "$DESTDIR"/lib/systemd/libsystemd-shared-25[0-3]*.so; do [ ! -e "$lib" ] || old=/ImportCredential=/d; done
	fill "$here/systemd/credentials.conf" $units/service.d/00-portcullis-credentials.conf -e "$old"
	put 644 "$here/systemd/modprobe.conf" /usr/lib/modprobe.d/portcullis.conf
	put 644 "$here/systemd/extension.conf" $units/kata-extension-mount@.service.d/10-portcullis.conf
	for unit in systemd-sysext systemd-confext systemd-sysext-initrd systemd-confext-initrd; do link /dev/null /etc/systemd/system/$unit.service; done
	# Units, shells and commands that the host asks for by credentials or words on the kernel command line.
	generators="systemd-ssh-generator systemd-import-generator"
	[ "$AGENT_POLICY_DEBUG" = yes ] || generators="$generators systemd-debug-generator systemd-run-generator"
	for generator in $generators; do link /dev/null /etc/systemd/system-generators/$generator; done
	# Kata masks these by words that systemd-debug-generator reads: the agent sets the network up.
	[ "$PEERPOD" = no ] || return 0
	for unit in systemd-networkd.service systemd-networkd.socket; do link /dev/null /etc/systemd/system/$unit; done
}

peerpod_units() {
	forwarder="forwarder"
	if in_front; then
		forwarder="forwarder-front"
		put 644 "$here/peerpod/policyd.conf" /usr/lib/systemd/system/policyd.service.d/20-peerpod.conf
	fi
	put 644 "$here/peerpod/$forwarder.conf" /usr/lib/systemd/system/agent-protocol-forwarder.service.d/10-portcullis.conf
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
	[ "$AGENT_POLICY_DEBUG" = no ] || put 644 "$here/etc/console" /etc/portcullis/console
}

# check compares a tree with what is laid down in a new one. Programs may have been stripped: they have to be there, and run.
check() {
	want=$(mktemp -d)
	trap 'rm -rf "$want"' EXIT
	DESTDIR=$want "$0" || die "check: cannot lay down what to compare with"
	missing=0
	for path in $(cd "$want" && find . ! -type d | sed 's|^\.||'); do
		if [ ! -e "$DESTDIR$path" ] && [ ! -L "$DESTDIR$path" ]; then
			echo "install portcullis: check: $path did not arrive" >&2
		elif [ -L "$want$path" ]; then
			[ "$(readlink "$want$path")" = "$(readlink "$DESTDIR$path")" ] && continue
			echo "install portcullis: check: $path is not a link to $(readlink "$want$path")" >&2
		elif [ -x "$want$path" ]; then
			[ -s "$DESTDIR$path" ] && [ -x "$DESTDIR$path" ] && continue
			echo "install portcullis: check: $path is no program" >&2
		else
			cmp -s "$want$path" "$DESTDIR$path" && continue
			echo "install portcullis: check: $path is another file" >&2
		fi
		missing=$((missing + 1))
	done
	[ $missing = 0 ] || die "check: $missing of what policyd needs is not as it must be; the guest would run without a gate, or not at all"
	echo "install portcullis: check: everything arrived"
}

one_of AGENT_POLICY "$AGENT_POLICY" yes no
one_of AGENT_POLICY_DEBUG "$AGENT_POLICY_DEBUG" yes no
one_of AGENT_INIT "$AGENT_INIT" yes no
one_of BINDING "$BINDING" required auto
one_of TPM_TRUST "$TPM_TRUST" "" azure-paravisor svsm asserted
one_of PEERPOD "$PEERPOD" no extend check
one_of PEERPOD_GATE "$PEERPOD_GATE" front behind
case $REST in
"" | 127.*:[0-9]* | localhost:[0-9]* | \[::1\]:[0-9]*) ;;
*) die "REST=$REST: want a loopback address and a port" ;;
esac
[ -z "$REST" ] || [ "$AGENT_INIT" = no ] || die "REST=$REST needs systemd, which holds its port: not with AGENT_INIT=yes"
if [ "$AGENT_POLICY" = no ]; then
	echo "install portcullis: AGENT_POLICY=no, nothing is installed"
	exit 0
fi
: "${POLICYD:?names the binary to install}"
KATA_AGENT=${KATA_AGENT:-/usr/bin/kata-agent}
[ "$AGENT_INIT" = no ] || [ "$KATA_AGENT" = /usr/bin/kata-agent ] || die "AGENT_INIT=yes starts /usr/bin/kata-agent"
if [ "$AGENT_INIT" = no ]; then
	known_init systemd || die "PID 1 of this tree is $init, not systemd, which would start nothing of what is laid down; see docs/rootfs.md"
else
	known_init init systemd busybox kata-agent || die "PID 1 of this tree is $init, and would not run any more; see docs/rootfs.md"
	# A file at /sbin/init is the agent, unless that is at its own place.
	case ${init:-}:$(ls "$DESTDIR$KATA_AGENT" 2>/dev/null) in */sbin/init:?*) die "PID 1 of this tree is $init, a program beside the agent that would not run any more; see docs/rootfs.md" ;; esac
fi
if [ "${1:-}" = check ]; then
	check
	exit
fi
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
