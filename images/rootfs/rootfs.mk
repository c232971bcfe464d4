# Targets that put policyd into guests. Included by the top Makefile; paths are from the project's root.
#
#   make install DESTDIR=... [AGENT_POLICY=] [AGENT_POLICY_DEBUG=] [AGENT_POLICY_FILE=] [AGENT_INIT=] [BINDING=] [TPM_TRUST=] [PEERPOD=] [PEERPOD_GATE=] [PEERPOD_TLS=] [REST=]
#   make uninstall DESTDIR=...        undo what install did
#   make overlay      the same tree as build/portcullis-overlay.tar, for builders that take a tarball
#   make guest-test   boot guests with it in QEMU, all or by RUN=pattern
BUILD ?= build
ROOTFS := images/rootfs
# The same source gives the same bytes, whenever and wherever it is built.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# Its flags are what makes policyd small, see docs/dependencies.md.
GUEST_GO = CGO_ENABLED=0 go build $(shell cat cmd/policyd/build.flags) -trimpath -buildvcs=false -ldflags='-s -w -funcalign=16 -buildid= -X $(shell go list -m)/internal/version.described=$(VERSION)'

export AGENT_POLICY AGENT_POLICY_DEBUG AGENT_POLICY_FILE AGENT_INIT BINDING TPM_TRUST PEERPOD PEERPOD_GATE PEERPOD_TLS KATA_AGENT REST

.PHONY: guest-binaries install check-install uninstall overlay reproducible guest-test

guest-binaries:
	@mkdir -p $(BUILD)
	$(GUEST_GO) -o $(BUILD)/policyd ./cmd/policyd
	$(GUEST_GO) -o $(BUILD)/portcullis-init ./$(ROOTFS)/cmd/init
	go run ./$(ROOTFS)/cmd/sbom $(BUILD)/policyd >$(BUILD)/policyd.cdx.json

# A default policy of one's own is compiled before anything is installed, by this machine's program.
ifneq ($(AGENT_POLICY_FILE),)
export POLICYCTL := $(abspath $(BUILD))/policyctl
guest-binaries: $(POLICYCTL)
.PHONY: $(POLICYCTL)
$(POLICYCTL):
	CGO_ENABLED=0 GOARCH= go build -trimpath -buildvcs=false -o $@ ./cmd/policyctl
endif

# AGENT_POLICY=no needs no binaries, and leaves nothing behind.
install: $(if $(filter no,$(AGENT_POLICY)),,guest-binaries) ## lay policyd down in a root filesystem: make install DESTDIR=...
	DESTDIR='$(DESTDIR)' POLICYD=$(BUILD)/policyd INIT_SHIM=$(BUILD)/portcullis-init SBOM=$(BUILD)/policyd.cdx.json $(ROOTFS)/install.sh

uninstall: ## take policyd out of a root filesystem again: make uninstall DESTDIR=...
	DESTDIR='$(DESTDIR)' $(ROOTFS)/install.sh uninstall

check-install: guest-binaries ## say whether a tree has all that install lays down: make check-install DESTDIR=...
	DESTDIR='$(DESTDIR)' POLICYD=$(BUILD)/policyd INIT_SHIM=$(BUILD)/portcullis-init SBOM=$(BUILD)/policyd.cdx.json $(ROOTFS)/install.sh check

overlay: guest-binaries ## the same tree as a tarball
	rm -rf $(BUILD)/overlay
	mkdir -p $(BUILD)/overlay
	OVERLAY=yes DESTDIR=$(BUILD)/overlay POLICYD=$(BUILD)/policyd INIT_SHIM=$(BUILD)/portcullis-init SBOM=$(BUILD)/policyd.cdx.json $(ROOTFS)/install.sh
	tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$(SOURCE_DATE_EPOCH) --format=gnu \
		-C $(BUILD)/overlay -cf $(BUILD)/portcullis-overlay.tar .

# Two builds with caches of their own, one of them elsewhere, give the same overlay.
reproducible: ## prove that two builds give the same bytes
	$(ROOTFS)/reproducible.sh

guest-test: ## boot guests with policyd in QEMU and test in them; RUN=pattern for some of the tests
	$(ROOTFS)/guesttest/run.sh $(if $(RUN),-run '$(RUN)')
