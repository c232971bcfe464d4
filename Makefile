# Portcullis: build, test and install. `make help` lists the targets.

SHELL := /bin/bash
GO ?= go
BIN := $(CURDIR)/bin
TOOLS := .ci/tools
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -funcalign=16 -X $(shell $(GO) list -m)/internal/version.described=$(VERSION)
GOBUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags='$(LDFLAGS)'
# What makes policyd small, see docs/dependencies.md.
GUEST_FLAGS := $(shell cat cmd/policyd/build.flags)

# What the tests run against besides our own code: a TPM, its tools, dm-verity's reference, a containerd, what people type.
TEST_PACKAGES := swtpm tpm2-tools cryptsetup-bin containerd systemd curl
OPA := $(BIN)/opa
# The linters, built from the tools' module. golangci-lint is not among them: see docs/dependencies.md.
LINTERS := $(addprefix $(BIN)/,staticcheck unparam deadcode revive lint mutants)
LINT_PACKAGES := shellcheck

# Where goroutines meet, or the host's bytes are read.
RACE_PACKAGES ?= ./agentproto/... ./engine/... ./hostdata/... ./measure/... ./images/... ./cmd/policyd

FUZZTIME ?= 20s
BENCHTIME ?= 1s
BENCHCOUNT ?= 1

.DEFAULT_GOAL := help
.PHONY: help build install-tools demo test race test-packages report-check lint lint-packages check-gen generate fuzz mutants adversary hostile bench trustee cose regorus interop lab admission-test check-lab dist check-dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build policyd, genpolicy and policyctl into bin/
	@mkdir -p $(BIN)
	$(GOBUILD) $(GUEST_FLAGS) -o $(BIN)/policyd ./cmd/policyd
	$(GOBUILD) -o $(BIN)/policyctl ./cmd/policyctl
	$(GOBUILD) -o $(BIN)/genpolicy ./cmd/genpolicy

PREFIX ?= /usr/local
install-tools: build ## install genpolicy and policyctl with manual pages and completions; PREFIX, DESTDIR
	@for p in genpolicy policyctl; do \
	  install -D -m 0755 $(BIN)/$$p $(DESTDIR)$(PREFIX)/bin/$$p; \
	  install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions zsh/site-functions fish/vendor_completions.d); \
	  $(BIN)/$$p man $(DESTDIR)$(PREFIX)/share/man/man1; \
	  $(BIN)/$$p completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$p; \
	  $(BIN)/$$p completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_$$p; \
	  $(BIN)/$$p completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/$$p.fish; \
	done; \
	ln -sf policyctl $(DESTDIR)$(PREFIX)/bin/kubectl-portcullis

demo: ## play a pod's life through a real gate, decisions printed
	@mkdir -p $(BIN)
	@start=$$(date +%s); $(GOBUILD) -o $(BIN)/policyctl ./cmd/policyctl && echo "built in $$(( $$(date +%s) - start )) s"
	@$(BIN)/policyctl demo

test: test-packages $(OPA) ## install what the tests need and run them all
	PORTCULLIS_OPA=$(OPA) $(GO) test -timeout 20m ./...
	$(GO) -C .ci/lab test ./...

race: test-packages $(OPA) ## run the tests with the race detector; RACE_PACKAGES
	PORTCULLIS_OPA=$(OPA) $(GO) test -race -timeout 30m $(RACE_PACKAGES)

test-packages: ## install the system packages that the tests use (Debian, Ubuntu; needs root)
	@missing=(); for p in $(TEST_PACKAGES); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing+=($$p); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
	  echo "installing $${missing[*]}"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; \
	fi

$(OPA): $(TOOLS)/go.mod
	@mkdir -p $(BIN)
	$(GO) -C $(TOOLS) build -o $@ github.com/open-policy-agent/opa

$(LINTERS): $(TOOLS)/go.mod $(wildcard $(TOOLS)/lint/*.go $(TOOLS)/mutants/*.go)
	@mkdir -p $(BIN)
	$(GO) -C $(TOOLS) build -o $(BIN)/ honnef.co/go/tools/cmd/staticcheck mvdan.cc/unparam golang.org/x/tools/cmd/deadcode github.com/mgechev/revive ./lint ./mutants

# A browser is a lot to install for one page: it is not part of `make test`.
report-check: ## open the pages of policyctl report in Chromium, with axe; screenshots in build/report
	@missing=(); for p in chromium npm; do command -v $$p >/dev/null || missing+=($$p); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
	  echo "installing $${missing[*]}"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}" fonts-dejavu-core >/dev/null; \
	fi
	$(GO) -C $(TOOLS) build -o $(BIN)/reportcheck ./reportcheck
	npm ci --prefix $(TOOLS)/axe --silent --no-audit --no-fund --ignore-scripts
	REPORT_DIR=$(CURDIR)/build/report REPORT_CHECK=$(BIN)/reportcheck REPORT_AXE=$(CURDIR)/$(TOOLS)/axe/node_modules/axe-core/axe.min.js \
	  $(GO) test -tags chromium -count 1 -v -run InChromium ./cmd/policyctl

lint: $(LINTERS) $(OPA) lint-packages ## format, go vet, linters, shell scripts, Rego
	@.ci/lint

lint-packages:
	@command -v shellcheck >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(LINT_PACKAGES) >/dev/null; }

generate: ## regenerate the generated files
	$(GO) -C $(TOOLS) run ./protogen
	$(GO) test ./rules -count 1 -run 'TestRequestsDocument|TestDefaultPoliciesAreFresh|TestSingleLeafChanges|TestRehearsalIsFresh' -update
	$(GO) test ./rules/settings -count 1 -run TestSettingsDocument -update

check-gen: generate ## prove that generated files are fresh
	git diff --exit-code -- agentproto docs rules/default rules/rehearsal.json.gz
	$(GO) mod tidy -diff

fuzz: ## run each fuzz target for FUZZTIME (default 20s)
	@.ci/fuzz $(FUZZTIME)

mutants: test-packages ## take each defence away and demand that a test notices; MUTANTS="-run NAME" or "-third TEXT"
	$(GO) -C $(TOOLS) run ./mutants $(MUTANTS)

adversary: ## changed sequences of genuine requests against a model of the pod; TIME=30m, SEED, PODS
	@set -o pipefail; $(GO) test -run '^TestNoSequenceBreaksAGuarantee$$' -count 1 -timeout 120m -v ./rules/adversary -adversary $(or $(TIME),30m) -seed $(or $(SEED),0) -pods '$(PODS)' | grep -v -e '^=== RUN' -e '--- PASS: .*/'

hostile: ## one hostile client against policyd in 128 MiB; HOSTILE=10m
	$(GO) test -run '^TestOneHostileClient$$' -count 1 -v -timeout 60m ./cmd/policyd -args -hostile $(or $(HOSTILE),10m)

bench: $(OPA) ## measure against OPA and a direct connection; BENCHTIME, BENCHCOUNT
	PORTCULLIS_OPA=$(OPA) $(GO) test -run '^$$' -bench . -benchtime $(BENCHTIME) -count $(BENCHCOUNT) -timeout 60m \
	  ./engine/... ./agentproto ./measure ./images/verity ./rules ./cmd/...

TRUSTEE ?=
trustee: ## ask the default EAR policy of a Trustee checkout what it reads of our policies; TRUSTEE=path
	@[ -n "$(TRUSTEE)" ] || { echo "say where Trustee is: make trustee TRUSTEE=path" >&2; exit 2; }
	PORTCULLIS_TRUSTEE=$(abspath $(TRUSTEE)) $(GO) test -count 1 -v -run TestVerifierServicesReadImagesAndUsers ./rules

COSE := $(CURDIR)/build/cose
COSE_PYTHON ?= $(COSE)/bin/python
$(COSE)/bin/python: # the versions that engine/fragment/testdata/cose.py says
	python3 -m venv $(COSE)
	$(COSE)/bin/pip install --quiet --disable-pip-version-check pycose==1.1.0 cbor2==5.6.5

cose: $(COSE_PYTHON) ## verify fragments of ours with pycose (needs python3-venv; COSE_PYTHON=path of a Python that has it)
	PORTCULLIS_COSE_PYTHON=$(abspath $(COSE_PYTHON)) $(GO) test -count 1 -v -run TestOurEnvelopes ./engine/fragment

regorus: ## hold the full form of policies to the Rego engine of kata-agent (needs cargo)
	cargo build --quiet --release --manifest-path .ci/regorus/Cargo.toml --target-dir build/regorus
	PORTCULLIS_REGORUS=$(CURDIR)/build/regorus/release/decide $(GO) test -tags regorus -count 1 -run Engine -v ./rules

# The share that `make test` runs takes half a minute; PAIRS, SEQUENCES to a pair, LOOSENINGS and SEED say how much.
prove-force: $(OPA) ## attack proofs, confirm witnesses on OPA and kata-agent's engine (cargo); PAIRS=500 SEQUENCES=10000
	cargo build --quiet --release --manifest-path .ci/regorus/Cargo.toml --target-dir build/regorus
	GOGC=800 PORTCULLIS_OPA=$(OPA) PORTCULLIS_REGORUS=$(CURDIR)/build/regorus/release/decide $(GO) test -count 1 -v -timeout 24h \
	  -run 'TestProofsStandAgainstForce|TestLooseningsAreFound' ./rules/prove -pairs $(or $(PAIRS),500) -sequences $(or $(SEQUENCES),10000) \
	  -loosenings $(or $(LOOSENINGS),200) $(if $(SEED),-seed $(SEED))

interop: build ## play a pod through the gate in front of a real agent: make interop KATA_AGENT=path [INTEROP="FLAG..."]
	@.ci/interop "$(KATA_AGENT)" $(INTEROP)

GENUINE := $(CURDIR)/rules/testdata/genuine
lab: test-packages ## record what real kubelets and containerds ask for into rules/testdata/genuine (root; 25 minutes, 5 GB)
	@.ci/lab/run $(GENUINE)

# A real API server takes a quarter of an hour to build on two cores: it is not part of `make test`.
admission-test: ## have a real kube-apiserver and etcd ask `policyctl admit` (builds them first)
	@.ci/lab/build $(CURDIR)/build/lab/bin etcd kubernetes-1.37
	PORTCULLIS_APISERVER=$(CURDIR)/build/lab/bin $(GO) test -tags apiserver -run '^TestAnAPIServerAsks$$' -count 1 -v -timeout 20m ./cmd/policyctl

check-lab: test-packages ## record once more and show what is not as in rules/testdata/genuine
	@rm -rf $(CURDIR)/build/lab/fresh
	@.ci/lab/run $(CURDIR)/build/lab/fresh
	@$(CURDIR)/build/lab/bin/lab diff $(GENUINE) $(CURDIR)/build/lab/fresh

rename: ## give the module a path that can be imported: make rename MODULE=example.org/you/portcullis
	@.ci/rename "$(MODULE)"

# VERSION from the last tag; KEY is a secret key of minisign, KEY_PASSWORD a file with its password.
DIST := $(CURDIR)/build/dist
dist: ## make the files of a release in build/dist: archives, packages, images, checksums; KEY= signs
	@rm -rf $(DIST); mkdir -p build
	$(GO) -C .ci/dist run . --source $(CURDIR) --version '$(VERSION)' --epoch $(SOURCE_DATE_EPOCH) --out $(DIST) \
	  $(if $(KEY),--key $(abspath $(KEY))) $(if $(KEY_PASSWORD),--password-file $(abspath $(KEY_PASSWORD)))
	@ls -l $(DIST) | awk 'NR > 1 {printf "%10d %s\n", $$5, $$9}'

check-dist: ## make dist twice and compare; install, run and verify what it made (root, Debian)
	@.ci/dist/check

clean: ## remove what was built
	rm -rf $(BIN)

-include images/rootfs/rootfs.mk
