#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Puts policyd into a root filesystem that Kata's osbuilder makes.
#
# Sourced at the end of a distribution's config.sh, it runs when rootfs.sh has set the tree up: the agent, and for AGENT_INIT=yes
# its place as /sbin/init, have to be there first. Called as a program, it does the same to a tree that is already set up, such
# as one that "rootfs.sh -r" has made.
#
# It takes osbuilder's variables:
#
#   ROOTFS_DIR         the tree
#   AGENT_POLICY       yes installs; no (osbuilder's default) leaves the tree as it is
#   AGENT_POLICY_FILE  default policy
#   AGENT_INIT         yes for a guest whose PID 1 is the agent
#
# and of its own AGENT_POLICY_DEBUG, BINDING, TPM_TRUST, REST and PEERPOD with its like, which install.sh explains, and
#
#   PORTCULLIS_BUILD   directory with policyd, portcullis-init and policyd.cdx.json, already built, and policyctl where there is an
#                      AGENT_POLICY_FILE; without it they are built here, which needs Go and make
#
# No package of the distribution is needed: EXTRA_PKGS stays as it is. Where rootfs.sh runs itself in a container (USE_DOCKER,
# USE_PODMAN), this project has to lie in Kata's tree, which is what the container sees, and PORTCULLIS_BUILD has to be set in
# config.sh, since the container gets osbuilder's variables only.

portcullis_dir="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)"

portcullis_install() {
	[[ -d "${ROOTFS_DIR:-}" ]] || { echo "portcullis: ROOTFS_DIR does not name a tree" >&2; return 1; }
	local policy_file="${AGENT_POLICY_FILE:-}"
	[[ -z "${policy_file}" ]] || policy_file="$(readlink -f -v "${policy_file}")"
	local -a variables=(
		DESTDIR="$(readlink -f "${ROOTFS_DIR}")" AGENT_POLICY="${AGENT_POLICY:-no}" AGENT_POLICY_FILE="${policy_file}"
		AGENT_POLICY_DEBUG="${AGENT_POLICY_DEBUG:-no}" AGENT_INIT="${AGENT_INIT:-no}" BINDING="${BINDING:-required}"
		TPM_TRUST="${TPM_TRUST:-}" PEERPOD="${PEERPOD:-no}" PEERPOD_GATE="${PEERPOD_GATE:-front}" PEERPOD_TLS="${PEERPOD_TLS:-}" REST="${REST:-}"
	)
	if [[ -z "${PORTCULLIS_BUILD:-}" ]]; then
		make -C "${portcullis_dir}" install "${variables[@]}"
		return
	fi
	env "${variables[@]}" POLICYD="${PORTCULLIS_BUILD}/policyd" INIT_SHIM="${PORTCULLIS_BUILD}/portcullis-init" \
		SBOM="${PORTCULLIS_BUILD}/policyd.cdx.json" POLICYCTL="${PORTCULLIS_BUILD}/policyctl" "${portcullis_dir}/images/rootfs/install.sh"
}

# portcullis_wrap makes rootfs.sh's last step ours too. Sourced twice, it wraps once.
portcullis_wrap() {
	declare -F portcullis_kata_setup_rootfs >/dev/null && return
	eval "portcullis_kata_$(declare -f setup_rootfs)"
	setup_rootfs() {
		portcullis_kata_setup_rootfs "$@"
		portcullis_install
	}
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then
	set -o errexit -o pipefail -o nounset
	portcullis_install
elif declare -F setup_rootfs >/dev/null; then
	portcullis_wrap
else
	echo "portcullis: sourced, but not by rootfs.sh, which defines setup_rootfs" >&2
	return 1
fi
