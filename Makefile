# Poplin. `make help` lists what can be made; docs/testing.md says what each tier of tests shows.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
GOARCH  ?= $(shell go env GOARCH 2>/dev/null)
HOSTARCH := $(shell go env GOHOSTARCH 2>/dev/null)
IMAGE   ?= poplin.dev/poplin:dev
INGRESS_IMAGE ?= poplin.dev/poplin-ingress:dev
NAME    ?= poplin

# One set of flags for everything, so that the build cache is shared.
export CGO_ENABLED := 0
V       := poplin.dev/poplin/pkg/version
LDFLAGS := -s -w -X $(V).Version=$(VERSION) -X $(V).Commit=$(COMMIT)
BUILD   := go build -trimpath -buildvcs=false -ldflags "$(LDFLAGS)"
# bin/ holds this machine's programs, bin/ARCH/ those of another.
BIN     := bin$(if $(filter-out $(HOSTARCH),$(GOARCH)),/$(GOARCH))
PROGRAMS := ./cmd/poplin ./cmd/poplind ./cmd/poplinctl ./cmd/poplin-ingress

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: go
go:
	@command -v go >/dev/null || { echo "Go 1.26 is missing: install it from https://go.dev/dl and put it in PATH" >&2; exit 1; }
	@v=$$(go env GOVERSION); printf '%s\n' go1.26 "$$v" | sort -CV || { echo "Go 1.26 is missing: PATH has $$v" >&2; exit 1; }

.PHONY: build
build: go ## programs into bin/ (GOARCH=arm64: into bin/arm64/)
	@mkdir -p $(BIN)
	GOARCH=$(GOARCH) $(BUILD) -o $(BIN)/ $(PROGRAMS)
	GOARCH=$(GOARCH) $(BUILD) -o $(BIN)/ ./test/cluster/cmd/cluster

.PHONY: image
image: build ## OCI archives dist/poplin-image.tar and dist/poplin-ingress-image.tar, from scratch, without a container engine
	go run -trimpath -buildvcs=false ./install/image -bin bin -version $(VERSION) -name $(IMAGE)
	go run -trimpath -buildvcs=false ./install/image -image poplin-ingress -bin bin -version $(VERSION) -name $(INGRESS_IMAGE)

.PHONY: chart
chart: go ## the Helm chart, from the manifests, into dist/chart
	go run -trimpath -buildvcs=false ./install/chart/write -version 0.0.0-dev -tag dev -o dist/chart

ARCHES   ?= amd64 arm64
REGISTRY ?= poplin.dev
RELEASE  ?= dist/release
comma    := ,
empty    :=

.PHONY: release
release: go ## what users download, into dist/release: programs, images, manifests, chart, lists of contents, notes, checksums
	rm -rf $(RELEASE)
	mkdir -p $(RELEASE)
	$(foreach a,$(ARCHES),$(MAKE) --no-print-directory build GOARCH=$(a) VERSION=$(VERSION) COMMIT=$(COMMIT) &&) true
	$(foreach i,poplin poplin-ingress,go run -trimpath -buildvcs=false ./install/image -image $(i) -bin bin -arch $(subst $(empty) $(empty),$(comma),$(ARCHES)) \
		-version $(VERSION) -name $(REGISTRY)/$(i):$(VERSION) -o $(RELEASE)/$(i)-$(VERSION)-image.tar &&) true
	go run -trimpath -buildvcs=false ./install/chart/write -version $(VERSION) -registry $(REGISTRY) -o dist/chart
	go run -trimpath -buildvcs=false ./install/release -chart dist/chart -bin bin -arch $(subst $(empty) $(empty),$(comma),$(ARCHES)) -registry $(REGISTRY) -version $(VERSION) -o $(RELEASE)

.PHONY: demo
demo: image browser ## a real three-node cluster on this machine, and proof: pods, a Service, an Ingress in a browser
	bin/cluster tools
	bin/cluster down --name $(NAME)
	bin/cluster up --name $(NAME) --family dual --network poplin
	go run -trimpath -buildvcs=false ./test/demo -name $(NAME)

.PHONY: demo-down
demo-down: build ## stop the demo's cluster and leave nothing behind
	bin/cluster down --name $(NAME)

# Packages whose tests need more than `make test` promises.
CLUSTER_TESTS := ./test/e2e/... ./test/cluster/...
LOCAL_PACKAGES = $$(go list ./... | grep -v /test/fault)
TESTFLAGS ?=

.PHONY: browser
browser:
	@test/packages chromium chromium-driver

.PHONY: test-tools
test-tools: go
	@test/packages iproute2 nftables iptables iputils-ping conntrack procps containernetworking-plugins

.PHONY: test
test: test-tools ## unit, architecture and network-namespace tests (root)
	go test -trimpath -buildvcs=false $(TESTFLAGS) $(LOCAL_PACKAGES)

.PHONY: race
race: test-tools ## unit tests under the race detector (needs a C compiler)
	@test/packages gcc libc6-dev
	CGO_ENABLED=1 go test -race -trimpath -buildvcs=false $(TESTFLAGS) $$(go list ./cmd/... ./plugins/... ./pkg/... ./daemon/... ./install/...)

# Compiled before the test that uses it, whose time is limited.
.PHONY: helm
helm: go
	cd test/cluster/helm && go build -trimpath -buildvcs=false -o /dev/null helm.sh/helm/v3/cmd/helm

.PHONY: e2e
e2e: image browser helm ## end-to-end tests on one real dual-stack cluster, and a short IPv6-only one
	bin/cluster tools --containerd
	go test -p 1 -trimpath -buildvcs=false -tags e2e -count=1 -timeout 30m $(TESTFLAGS) $(CLUSTER_TESTS)

.PHONY: fault
fault: image test-tools ## every fault, a tenth of its count
	bin/cluster tools
	go test -trimpath -buildvcs=false -tags e2e -count=1 -timeout 40m $(TESTFLAGS) ./test/fault/...

# Tests that `make test` runs with a tenth of their counts belong to the soak too.
SOAK_TESTS := ./test/fault/... ./test/netns ./test/flow ./test/policy ./test/oracle/... ./test/ingress ./pkg/apply/proxy

.PHONY: soak
soak: image test-tools ## every fault, its full count, and ten minutes of each fuzz target
	bin/cluster tools
	POPLIN_SOAK=1 go test -p 1 -trimpath -buildvcs=false -tags e2e -count=1 -timeout 4h $(TESTFLAGS) $(SOAK_TESTS)
	test/fuzz 10m

FUZZTIME ?= 10s

.PHONY: fuzz
fuzz: go ## every fuzz target, FUZZTIME=10s each, as many packages at once as there are CPUs
	test/fuzz $(FUZZTIME)

.PHONY: bench
bench: go ## CNI against ptp and bridge with host-local, 10 to 5,000 nodes, packets beside bare devices, Services against kube-proxy, 1,000 policies, 5,000 Ingresses, Ingress against nginx and HAProxy, as ratios of one run (BENCHFLAGS=-quick: less of it)
	@test/packages iproute2 nftables iptables containernetworking-plugins nginx-light haproxy nghttp2-client
	go run -trimpath -buildvcs=false ./test/bench $(BENCHFLAGS)

.PHONY: performance
performance: go ## docs/performance.md out of docs/performance.json, which `make bench BENCHFLAGS="-json docs/performance.json"` writes
	go run -trimpath -buildvcs=false ./test/bench -page docs/performance.md docs/performance.json

.PHONY: scale
scale: go ## Figures of docs/scale.md out of docs/scale.json, which `make bench BENCHFLAGS="-only scale -json docs/scale.json"` writes
	go run -trimpath -buildvcs=false ./test/bench -fill docs/scale.md docs/scale.json

.PHONY: conformance
conformance: image ## Kubernetes' own [sig-network] conformance tests on a cluster of Poplin's (CONFORMANCE='-report docs/conformance.md': with the CNI tests, as a page)
	bin/cluster tools --conformance
	go run -trimpath -buildvcs=false ./test/conformance -version $(VERSION) $(CONFORMANCE)

.PHONY: lint
lint: go ## go vet, gofmt and golangci-lint (built from its module)
	@test -z "$$(gofmt -l cmd plugins pkg daemon install test)" || { gofmt -l cmd plugins pkg daemon install test; exit 1; }
	go vet -trimpath -buildvcs=false ./... && go vet -trimpath -buildvcs=false -tags e2e ./test/...
	go run -trimpath -buildvcs=false github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI) run ./...

GOLANGCI ?= v2.15.0

.PHONY: fmt
fmt: go ## gofmt
	gofmt -w cmd plugins pkg daemon install test
