#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Lays policyd and all it needs down in a guest's root filesystem. "make install" calls it with these variables:
#
#   DESTDIR             root of the filesystem
#   POLICYD, INIT_SHIM  binaries to install; INIT_SHIM for AGENT_INIT=yes
#   SBOM                list of what is in policyd, optional
#   AGENT_POLICY        yes (default); no installs nothing
#   AGENT_POLICY_DEBUG  yes writes every request to /tmp/policy.txt; default no
#   AGENT_POLICY_FILE   default policy, in place of the one that BINDING calls for; it has to compile
#   POLICYCTL           program of the machine that builds the image, which compiles AGENT_POLICY_FILE
#   OVERLAY             yes for a tree that is laid over another, which has the agent; default no
#   AGENT_INIT          yes for a guest without systemd whose PID 1 is the agent; default no
#   BINDING             required (default) or auto
#   TPM_TRUST           azure-paravisor, svsm, asserted or empty (default): who keeps the TPM from the host
#   PEERPOD             no (default), or how PCR 8 gets the digest of initdata in a peer-pod image: extend or check
#   PEERPOD_GATE        front (default) of the forwarder, which acts on requests before it passes them on, or behind it
#   PEERPOD_TLS         certificates for front: the forwarder's configuration (default /run/peerpod/daemon.json), or CERTIFICATE:KEY:CLIENT_CA
#   KATA_AGENT          the agent's path in the guest
#   REST                HOST:PORT on which agents of the sidecar era ask, such as 127.0.0.1:8181; default none. Needs systemd
#
# What it does is written down in /usr/share/portcullis/installed. An installation over an older one first undoes that one.
#
# With the argument "check" it changes nothing: it says whether all that it would lay down is in DESTDIR, for images that are made
# of a fixed list of files. With "uninstall" it undoes what was installed; only DESTDIR is needed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
AGENT_POLICY=${AGENT_POLICY:-yes} AGENT_POLICY_DEBUG=${AGENT_POLICY_DEBUG:-no} AGENT_INIT=${AGENT_INIT:-no}
BINDING=${BINDING:-required} TPM_TRUST=${TPM_TRUST:-} PEERPOD=${PEERPOD:-no} REST=${REST:-}
PEERPOD_GATE=${PEERPOD_GATE:-front} PEERPOD_TLS=${PEERPOD_TLS:-} OVERLAY=${OVERLAY:-no}
installed=/usr/share/portcullis/installed

die() { echo "install portcullis: $*" >&2; exit 1; }

[ -n "${DESTDIR:-}" ] || die "DESTDIR is not set: give the root of the filesystem, as in make install DESTDIR=tree"

one_of() { # NAME VALUE WORD...
	name=$1 value=$2
	shift 2
	for word; do [ "$value" = "$word" ] && return; done
	die "$name=$value: want one of: $*"
}

# note writes down one thing that was done, so that it can be undone:
#   dir PATH, file PATH, link PATH TARGET, was PATH TARGET (a link that ours replaced), moved PATH NEW-PATH
note() { echo "$*" >>"$DESTDIR$installed"; }

above() { # PATH: makes the directories above it
	missing='' dir=${1%/*}
	while [ -n "$dir" ] && [ ! -d "$DESTDIR$dir" ]; do missing="$dir $missing" dir=${dir%/*}; done
	[ -z "$missing" ] || mkdir -p "$DESTDIR${1%/*}"
	for dir in $missing; do note "dir $dir"; done
}

put() { # MODE FILE PATH
	above "$3"
	note "file $3"
	install -m "$1" "$2" "$DESTDIR$3"
}

fill() { # FILE PATH SED-EXPRESSION...
	file=$1 path=$2
	shift 2
	above "$path"
	note "file $path"
	sed "$@" "$file" >"$DESTDIR$path"
	chmod 644 "$DESTDIR$path"
}

link() { # TARGET PATH
	above "$2"
	if [ -L "$DESTDIR$2" ]; then
		was=$(readlink "$DESTDIR$2")
		[ "$was" != "$1" ] || return 0 # it is the image's own
		note "was $2 $was"
	fi
	note "link $2 $1"
	ln -sfn "$1" "$DESTDIR$2"
}

# uninstall undoes what was installed, the last thing first.
uninstall() {
	if [ ! -f "$DESTDIR$installed" ]; then
		uninstall_unlisted
		return
	fi
	steps=$(sed '1!G;h;$!d' "$DESTDIR$installed")
	rm -f "$DESTDIR$installed"
	echo "$steps" | while read -r what path more; do
		case $what in
		dir) rmdir "$DESTDIR$path" 2>/dev/null || : ;; # somebody else put something there
		file) rm -f "$DESTDIR$path" ;;
		link) [ "$(readlink "$DESTDIR$path")" != "$more" ] || rm -f "$DESTDIR$path" ;;
		was) ln -sfn "$more" "$DESTDIR$path" ;;
		moved) mv "$DESTDIR$more" "$DESTDIR$path" ;;
		*) die "uninstall: $installed has the line: $what $path $more" ;;
		esac
	done
}

# uninstall_unlisted removes what was installed before a list was kept: what has a name of ours, and masks.
uninstall_unlisted() {
	units=/usr/lib/systemd/system
	if [ ! -e "$DESTDIR/etc/portcullis/config.toml" ]; then return 0; fi
	rm -rf "$DESTDIR/etc/portcullis" "$DESTDIR/usr/share/portcullis"
	for path in /usr/bin/policyd /usr/lib/tmpfiles.d/portcullis.conf /usr/lib/modules-load.d/portcullis.conf /usr/lib/modprobe.d/portcullis.conf \
		$units/policyd.service $units/policyd-rest.socket $units/kata-containers.target.wants/policyd.service $units/multi-user.target.wants/policyd.service \
		$units/policyd.service.d/10-rest.conf $units/policyd.service.d/10-debug.conf $units/policyd.service.d/20-peerpod.conf \
		$units/kata-agent.service.d/10-portcullis.conf $units/kata-agent.service.d/20-portcullis-debug.conf $units/service.d/00-portcullis-credentials.conf \
		$units/kata-extension-mount@.service.d/10-portcullis.conf $units/agent-protocol-forwarder.service.d/10-portcullis.conf \
		$units/agent-protocol-forwarder.path.d/10-portcullis.conf $units/process-user-data.service.d/20-portcullis.conf; do
		rm -f "$DESTDIR$path"
		case ${path%/*} in */system) ;; *) rmdir "$DESTDIR${path%/*}" 2>/dev/null || : ;; esac
	done
	for unit in systemd-sysext systemd-confext systemd-sysext-initrd systemd-confext-initrd systemd-networkd; do
		unmask /etc/systemd/system/$unit.service
	done
	unmask /etc/systemd/system/systemd-networkd.socket
	for generator in ssh import debug run; do unmask /etc/systemd/system-generators/systemd-$generator-generator; done
}

unmask() { [ "$(readlink "$DESTDIR$1")" != /dev/null ] || rm -f "$DESTDIR$1"; }

shim=/usr/libexec/portcullis/init

# known_init says whether PID 1 of the tree is one that this script knows how to get on with; what is there is in $init.
known_init() { # WORD...
	for path in /sbin/init /usr/sbin/init; do
		[ -e "$DESTDIR$path" ] || [ -L "$DESTDIR$path" ] || continue
		init=$path
		[ ! -L "$DESTDIR$path" ] || init=$(readlink "$DESTDIR$path")
		# Ours is put away before another is laid down: what was there counts.
		if [ "$init" = "$shim" ] && [ -f "$DESTDIR$installed" ]; then
			init=$(sed -n "s|^was /[usr/]*sbin/init ||p; s|^moved \\(/[usr/]*sbin/init\\) .*|\\1|p" "$DESTDIR$installed")
			[ -n "$init" ] || continue
		fi
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
	case ${PEERPOD_TLS:=/run/peerpod/daemon.json} in
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
	put 755 "$INIT_SHIM" $shim
	sbin=/sbin
	[ -L "$DESTDIR/sbin" ] && sbin=/usr/sbin
	init=$DESTDIR$sbin/init
	if [ -f "$init" ] && [ ! -L "$init" ] && [ ! -e "$DESTDIR$KATA_AGENT" ]; then
		above "$KATA_AGENT"
		note "moved $sbin/init $KATA_AGENT"
		mv "$init" "$DESTDIR$KATA_AGENT"
	fi
	link $shim $sbin/init
	[ "$AGENT_POLICY_DEBUG" = no ] || put 644 "$here/etc/console" /etc/portcullis/console
}

# check compares a tree with what is laid down in a new one. Programs may have been stripped: they have to be there, and run.
check() {
	want=$(mktemp -d)
	trap 'rm -rf "$want"' EXIT
	DESTDIR=$want OVERLAY=yes "$0" || die "check: cannot lay down what to compare with"
	missing=0
	for path in $(cd "$want" && find . ! -type d ! -path ".$installed" | sed 's|^\.||'); do
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
	if [ "$OVERLAY" = no ] && [ ! -e "$DESTDIR$KATA_AGENT" ] && [ ! -L "$DESTDIR$KATA_AGENT" ]; then
		echo "install portcullis: check: $KATA_AGENT did not arrive; if the agent is elsewhere, name it with KATA_AGENT" >&2
		missing=$((missing + 1))
	fi
	[ $missing = 0 ] || die "check: $missing of what policyd needs is not as it must be; the guest would run without a gate, or not at all"
	echo "install portcullis: check: everything arrived"
}

[ -z "${1:-}" ] || [ -d "$DESTDIR" ] || die "$1: DESTDIR=$DESTDIR is no directory"
if [ "${1:-}" = uninstall ]; then
	uninstall
	exit
fi
one_of AGENT_POLICY "$AGENT_POLICY" yes no
one_of AGENT_POLICY_DEBUG "$AGENT_POLICY_DEBUG" yes no
one_of AGENT_INIT "$AGENT_INIT" yes no
one_of BINDING "$BINDING" required auto
one_of TPM_TRUST "$TPM_TRUST" "" azure-paravisor svsm asserted
one_of PEERPOD "$PEERPOD" no extend check
one_of PEERPOD_GATE "$PEERPOD_GATE" front behind
one_of OVERLAY "$OVERLAY" yes no
case $REST in
"" | 127.*:[0-9]* | localhost:[0-9]* | \[::1\]:[0-9]*) ;;
*) die "REST=$REST: want a loopback address and a port" ;;
esac
[ -z "$REST" ] || [ "$AGENT_INIT" = no ] || die "REST=$REST needs systemd, which holds its port: not with AGENT_INIT=yes"
[ "$PEERPOD" = no ] || [ "$AGENT_INIT" = no ] || die "PEERPOD=$PEERPOD needs systemd, which starts the forwarder: not with AGENT_INIT=yes"
[ "$PEERPOD_GATE" = front ] || [ "$PEERPOD" != no ] || die "PEERPOD_GATE=$PEERPOD_GATE is for peer pods: set PEERPOD too"
[ -z "$PEERPOD_TLS" ] || in_front || die "PEERPOD_TLS=$PEERPOD_TLS is for a gate in front of the forwarder: set PEERPOD, and PEERPOD_GATE=front"
case $PEERPOD_TLS in
"" | /*:/*:/*) ;;
*:* | [!/]*) die "PEERPOD_TLS=$PEERPOD_TLS: want FILE, or CERTIFICATE:KEY:CLIENT_CA, as absolute paths in the guest" ;;
esac
[ ! -e "$DESTDIR" ] || [ -d "$DESTDIR" ] || die "DESTDIR=$DESTDIR is no directory"
if [ "$AGENT_POLICY" = no ]; then
	echo "install portcullis: AGENT_POLICY=no, nothing is installed"
	exit 0
fi
: "${POLICYD:?names the binary to install}"
[ -f "$POLICYD" ] || die "POLICYD=$POLICYD is not there"
KATA_AGENT=${KATA_AGENT:-/usr/bin/kata-agent}
case $KATA_AGENT in
/*) ;;
*) die "KATA_AGENT=$KATA_AGENT: want its absolute path in the guest" ;;
esac
[ "$AGENT_INIT" = no ] || [ "$KATA_AGENT" = /usr/bin/kata-agent ] || die "AGENT_INIT=yes starts /usr/bin/kata-agent"
if [ "$AGENT_INIT" = no ]; then
	known_init systemd || die "PID 1 of this tree is $init, not systemd, which would start nothing of what is laid down; see docs/rootfs.md"
else
	: "${INIT_SHIM:?names the init shim to install}"
	[ -f "$INIT_SHIM" ] || die "INIT_SHIM=$INIT_SHIM is not there"
	known_init init systemd busybox kata-agent || die "PID 1 of this tree is $init, and would not run any more; see docs/rootfs.md"
	# A file at /sbin/init is the agent, unless that is at its own place.
	case ${init:-}:$(ls "$DESTDIR$KATA_AGENT" 2>/dev/null):$(grep -s "^moved .*sbin/init " "$DESTDIR$installed") in
	*/sbin/init:?*:) die "PID 1 of this tree is $init, a program beside the agent that would not run any more; see docs/rootfs.md" ;;
	esac
fi
if [ -n "${AGENT_POLICY_FILE:-}" ] && [ "${1:-}" != check ]; then
	[ -f "$AGENT_POLICY_FILE" ] || die "AGENT_POLICY_FILE=$AGENT_POLICY_FILE is not there"
	[ -x "${POLICYCTL:-}" ] || die "AGENT_POLICY_FILE=$AGENT_POLICY_FILE: POLICYCTL names no program to compile it with"
	"$POLICYCTL" diff "$AGENT_POLICY_FILE" "$AGENT_POLICY_FILE" >/dev/null || die "AGENT_POLICY_FILE=$AGENT_POLICY_FILE does not compile; a guest would deny everything"
fi
if [ "${1:-}" = check ]; then
	check
	exit
fi
umask 022
uninstall
mkdir -p "$DESTDIR"
if [ "$OVERLAY" = no ] && [ ! -e "$DESTDIR$KATA_AGENT" ] && { [ "$AGENT_INIT" = no ] || [ ! -e "$DESTDIR/sbin/init" ]; }; then
	echo "install portcullis: warning: the tree has no $KATA_AGENT: policyd would wait for an agent that never starts; put it there, or name it with KATA_AGENT" >&2
fi
above $installed
put 755 "$POLICYD" /usr/bin/policyd
[ -z "${SBOM:-}" ] || put 644 "$SBOM" /usr/share/portcullis/policyd.cdx.json
configuration
if [ "$AGENT_INIT" = yes ]; then
	init_shim
else
	units
	[ "$PEERPOD" = no ] || peerpod_units
fi
