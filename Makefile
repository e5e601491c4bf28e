# `make` prints what it can do. Each target's help stands behind its ##.

GO ?= go
# make's own defaults, cc and c++, are not everywhere.
ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
export CC

# The images of `make image`, as $(IMAGE)-envoy and so on, and their architectures: the engine's own by default. PUSH=1 pushes them, with
# a list of their contents (SBOM) and provenance; several architectures need that, since an engine's own store may not hold them.
IMAGES := plugin module module-distroless backend
IMAGE ?= healthgate
TAG ?= latest
PLATFORMS ?=

# The version that command, plugin, module and images report.
VERSION  ?= $(or $(shell git describe --tags --dirty 2>/dev/null),devel)
REVISION ?= $(shell git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null)
STAMP     = -X healthgate/filter/version.number=$(VERSION) -X healthgate/filter/version.revision=$(REVISION)

# The variant of `make run` and `make demo`: plugin or module. And the ports of `make run`, both on loopback.
VARIANT ?= plugin
ifeq ($(filter plugin module both,$(VARIANT)),)
$(error VARIANT is plugin or module, and not "$(VARIANT)")
endif
# As the programs in e2e name it.
export HTTPS_PORT ?= 8443
export ADMIN_PORT ?= 9901

# How long each fuzz target runs in `make fuzz`, and of which packages. lint's has all of Envoy's API instrumented, which takes
# minutes: `make unit` leaves it out, and has mutations of its corpus in its place.
FUZZTIME ?= 1m
FUZZED ?= ./filter/... ./internal/...

# What docker compose builds with.
BUILDX_LEAST := 0.17.0

# What the final image has: Ubuntu 22.04. A plugin that asks for more does not load there.
GLIBC_MOST := 2.35

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
export GOFLAGS := $(GOFLAGS) -buildvcs=false

PLUGIN  := build/healthgate.so
MODULE  := build/libhealthgate.so
CONTRIBHOST := build/libcontribhost.so
BACKEND := build/backend
COMMAND := build/healthgate
DEMO    := build/demo
SUITE   := build/e2e.test
EMPTY   := build/empty.so
EMPTYGO := build/emptygo.so
SMALLEST := build/libsmallest.so
CLOCK   := build/clock.so
HEALTH_PROBE := build/grpc-health-probe

# Those that are there: git lists what was removed and is not yet committed, too. What is under e2e is a Go module of its own.
go_files  = $(wildcard $(shell git ls-files --cached --others --exclude-standard '*.go' 2>/dev/null || find . -name '*.go'))
own_files = $(filter-out e2e/%,$(go_files)) go.mod go.sum
c_files   = $(wildcard filter/dynamicmodule/*.c filter/dynamicmodule/*.h)
e2e_files = $(go_files) go.mod e2e/go.mod e2e/go.sum
E2E      := $(GO) -C e2e

.PHONY: help
help: ## print this
	@awk 'BEGIN { FS = ":.*## " } /^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: $(PLUGIN) $(MODULE) $(COMMAND) $(CONTRIBHOST) $(BACKEND) ## build both variants and the command, and what they are tested and shown with

.PHONY: plugin
plugin: $(PLUGIN) ## build the plugin alone (GOARCH and CC for another architecture)

.PHONY: module
module: $(MODULE) ## build the dynamic module for stock Envoy alone (GOARCH and CC for another architecture)

$(PLUGIN): $(own_files) | tools
	@echo "building $@"
	@mkdir -p $(@D)
	@CGO_ENABLED=1 $(GO) build -trimpath -buildmode=c-shared -ldflags='-s -w $(STAMP) -extldflags=-Wl,-z,now' -o $@.new .
	@rm -f $@.h $@.new.h $(@:.so=.h)
	@./e2e/check-object.sh $@.new $(GLIBC_MOST)
	@mv $@.new $@

# What Envoy lacks is weak here, and asked for when the module is loaded. Its own functions are not to be found by others, nor
# others' by it.
$(MODULE): $(own_files) $(c_files) | tools
	@echo "building $@"
	@mkdir -p $(@D)
	@CGO_ENABLED=1 $(GO) build -trimpath -buildmode=c-shared -ldflags='-s -w $(STAMP) -extldflags "-Wl,-z,now -Wl,-Bsymbolic"' -o $@.new ./cmd/libhealthgate
	@rm -f $@.h $@.new.h $(@:.so=.h)
	@./e2e/check-object.sh $@.new $(GLIBC_MOST)
	@mv $@.new $@

.PHONY: command
command: $(COMMAND) ## build the command alone (GOOS and GOARCH for another machine)

# The first time this compiles all of Envoy's API, which takes minutes.
$(COMMAND): $(own_files) | go-alone
	@echo "building $@"
	@mkdir -p $(@D)
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w $(STAMP)' -o $@ ./cmd/healthgate

$(BACKEND) $(DEMO): build/%: $(e2e_files) | tools
	@echo "building $@"
	@mkdir -p build
	@CGO_ENABLED=0 $(E2E) build -trimpath -ldflags='-s -w' -o ../$@ ./$*

$(SUITE): $(e2e_files) | tools
	@echo "building $@"
	@mkdir -p build
	@CGO_ENABLED=0 $(E2E) test -c -trimpath -o ../$@ ./suite

# The headers of the dynamic module ABI and of the contrib host come from the Go module cache.
$(CONTRIBHOST): $(wildcard e2e/contribhost/*.cc e2e/contribhost/*.h) e2e/contribhost/unused.c e2e/contribhost/exports.map e2e/go.mod | tools cxx
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

# A gRPC client that others wrote, which the suite asks by.
$(HEALTH_PROBE): Makefile | tools
	@echo "building $@"
	@mkdir -p build
	@GOBIN=$(CURDIR)/build $(GO) install github.com/grpc-ecosystem/grpc-health-probe@v0.4.62

# Fail early, and say all that is missing and how to get it. tools is what the plugin needs, everything what `make run` does.
CHECK := ./e2e/check-tools.sh
.PHONY: go-alone tools cxx everything docker
go-alone:
	@$(CHECK) go=$(GO)
	@GOPROXY=off $(GO) mod download 2>/dev/null || { echo "fetching the Go modules that it is made of (80 MB, once)"; $(GO) mod download; }
tools:
	@$(CHECK) linux go=$(GO) cc=$(CC) readelf
	@(GOPROXY=off $(GO) mod download && GOPROXY=off $(E2E) mod download) 2>/dev/null || \
	  { echo "fetching the Go modules that it is made of and tested with (113 MB, once)"; $(GO) mod download && $(E2E) mod download; }
cxx:
	@$(CHECK) cxx=$(CXX)
everything:
	@$(CHECK) linux go=$(GO) cc=$(CC) cxx=$(CXX) readelf envoy
docker:
	@$(CHECK) docker

# An engine's own builder can say what is in an image, and hold it for several architectures, only where the engine keeps its images
# in containerd. A builder of its own (driver docker-container) always can.
.PHONY: pushable
pushable: | docker
	@driver=$$(docker buildx inspect | awk '$$1 == "Driver:" { print $$2; exit }'); \
	if [ "$$driver" = docker ] && ! docker info --format '{{json .DriverStatus}}' | grep -q io.containerd.snapshotter; then \
	  echo "PUSH=1 adds an SBOM and provenance, which this engine's own builder can't make. Type 'docker buildx create --use', and this again" >&2; exit 1; \
	fi

.PHONY: compose
compose: | docker
	@docker compose version >/dev/null 2>&1 || { echo "docker compose is missing: https://docs.docker.com/compose/install" >&2; exit 1; }
	@version=$$(docker buildx version | awk '{ print $$2 }'); version=$${version#v}; \
	[ "$$(printf '%s\n' $(BUILDX_LEAST) "$$version" | sort -V | head -n 1)" = $(BUILDX_LEAST) ] || { \
	  echo "docker buildx is $$version, and docker compose builds with $(BUILDX_LEAST) or newer: https://docs.docker.com/build/buildx/install" >&2; exit 1; }

.PHONY: kubectl
kubectl:
	@$(CHECK) kubectl$(if $(KUBE_CONTEXT),, docker)

.PHONY: envoy
envoy: ## fetch the Envoy that the tests run, once, and print its path (ENVOY=path uses another)
	@./e2e/fetch-envoy.sh

.PHONY: fetched
fetched:
	@./e2e/fetch-envoy.sh >/dev/null

.PHONY: test
test: lint unit e2e ## run everything: lint, unit tests with the race detector, the tests in Envoy

.PHONY: lint
lint: $(COMMAND) | tools ## check formatting, vet, the Dockerfile, the workflows, each configuration and each rendered overlay
	@echo "checking formatting, go vet, go.mod, the Dockerfile, the workflows, the configurations, the manifests"
	@unformatted=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')); \
	[ -z "$$unformatted" ] || { echo "not gofmt'ed: $$unformatted" >&2; exit 1; }
	@$(GO) vet ./... && $(E2E) vet ./...
	@$(GO) mod tidy -diff && $(E2E) mod tidy -diff
	@.ci/hadolint.sh Dockerfile
	@$(GO) run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
	@rm -rf build/manifests && mkdir -p build/manifests && $(E2E) run ./render -dir ../build/manifests
	@found=; for file in $(filter-out envoy/kustomization.yaml,$(wildcard envoy/*.yaml envoy/examples/*.yaml envoy/examples/module/*.yaml)) build/manifests/*.yaml; do \
	  $(COMMAND) lint "$$file" || found=1; \
	done; [ -z "$$found" ]

.PHONY: golangci
golangci: | tools ## look for bugs by golangci-lint, by the linters of .golangci.yaml
	@for module in . e2e; do \
	  (cd $$module && $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run ./...); \
	done

.PHONY: vulnerabilities
vulnerabilities: | tools ## look for known vulnerabilities in what is used, in Go's database of them (VULNDB=URL for a copy)
	@for module in . e2e; do \
	  $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 -C $$module $(if $(VULNDB),-db $(VULNDB)) ./...; \
	done

# Runs tests, and ends with how many of them ran.
TESTS := $(GO) run gotest.tools/gotestsum@v1.13.0 --format pkgname --

.PHONY: unit
unit: | tools ## run the unit tests with the race detector, what is read and not run, and fuzz for seconds
	@echo "running the unit tests"
	@$(TESTS) -race ./...
	@cd e2e && $(TESTS) -race -short ./backend/... ./testbed ./kubernetes ./compare && $(TESTS) ./repo
	@$(MAKE) --no-print-directory fuzz FUZZTIME=2s FUZZED=./filter/...

# The dynamic module is for each of these, besides the version that is run whole; newest first.
OTHER_ENVOYS := 1.40.0 1.39.3 1.38.3

# What is run of it there: the answers, reload, drain, gRPC, and exit under load. A test holds each name to the suite's.
EVERYWHERE := \
  AnswerFollowsTheHealthyHosts ReplyIsWhatTheContractSays WhatIsAProbe RouteHasRulesOfItsOwn StartHasNoGap \
  ModuleNeedsItsBootstrapExtensionOnce BadUpdateIsRefusedAndTheOldOneGoesOn BadRouteOfAnUpdateIsRefused \
  ClusterThatIsRemovedUnderALiveStreamIsUnknown DrainingFailsTheProbe HealthServiceFollowsADrain \
  HealthServiceAnswersByTheGate WatchersSeeChangesAndTheEndOfEnvoy WatchersThatGoLeaveNothing GarbageIsAnsweredByTheRule \
  NoWorkerCallsGo SIGTERMUnderLoadEndsEnvoyWell EnvoyEndsInOrderWhileOldChainsDrainUnderLoad \
  OverrideThatComesAgainIsAnsweredByItsCluster HoldOfAnOverrideOutlivesAnUpdateOfItsRoutes HoldOfAFilterOutlivesAnUpdateOfItsListener \
  ClusterWhoseCountersBeginAnewIsNotStale ClusterIsUnknownAsLongAsEnvoyDoesNotHaveIt ClusterThatNeverWasThereIsUnknown \
  ListenerThatWarmsWritesNothing ProbesThatWaitedWhileEnvoyWasStoppedPass UpdateOfManyFilterChainsMakesFewPasses \
  WatchEndsWithItsOverride WatchEndsWithItsFiltersConfiguration WatchersAreLimited AnswersOfTheGateComeThroughGRPCWeb

# The tests of a list, as go test -run takes them.
empty :=
named = ^Test($(subst $(empty) $(empty),|,$(strip $(1))))$$

# Everything that the tests in Envoy load or run.
suite_needs = everything build $(DEMO) $(CLOCK) $(EMPTY) $(EMPTYGO) $(SMALLEST) $(HEALTH_PROBE) fetched

# A machine that stands still for seconds fails a test in a real Envoy that is right. So one that fails there is run again, once, by
# itself; the first failure is printed all the same, and told at the end. More than three that fail are not run again.
IN_ENVOY = $(GO) run gotest.tools/gotestsum@v1.13.0 --format pkgname --rerun-fails=1 --rerun-fails-max-failures=3 --packages="$(1)" -- -count=1 -timeout 30m
STOCK = $(call IN_ENVOY,./suite)

# The plugin of the Go plugin is for one version of Envoy: where a version is named, all of the dynamic module's tests are run, and no
# other.
.PHONY: e2e
ifdef ENVOY_VERSION
e2e: $(suite_needs) ## run the tests in a real Envoy, by each way into it (ENVOY_VERSION=1.40.0: by the dynamic module in that alone)
	@echo "running the tests in Envoy $(ENVOY_VERSION) by the dynamic module"
	@cd e2e && ENVOY_VERSION=$(ENVOY_VERSION) $(STOCK) -args -variant=module
else
e2e: $(suite_needs)
	@echo "running the tests in Envoy by the Go plugin, and what compares, loads and measures, for a short time"
	@cd e2e && $(call IN_ENVOY,./suite ./demo ./bench ./compare)
	@echo "running the tests in Envoy by the dynamic module"
	@cd e2e && $(STOCK) -args -variant=module
ifndef ENVOY
	@cd e2e && for version in $(OTHER_ENVOYS); do \
	  echo "running a part of them in Envoy $$version by the dynamic module"; \
	  ENVOY_VERSION=$$version $(STOCK) -run '$(call named,$(EVERYWHERE))' -args -variant=module; \
	done
endif
endif

# What takes too long for each change: the faults that say so in docs/failure-modes.md, as often as it says.
FAULTS := \
  Fault.* AThousandWatchersSeeEachChange SlowWatchersHoldUpNobody SilentWatchOutlastsTheIdleTimeout \
  RandomGarbageHarmsNothing EnvoyEndsInOrderWhileOldChainsDrainUnderLoad ManyConfigurationsOnFourWorkers

.PHONY: faults
faults: $(suite_needs) ## break things for a long time by the dynamic module, in each version of Envoy; an hour (ENVOY_VERSION=1.40.0: in that alone)
	@cd e2e && for version in $(or $(ENVOY_VERSION),1.39.1 $(OTHER_ENVOYS)); do \
	  echo "breaking things in Envoy $$version"; \
	  ENVOY_VERSION=$$version $(TESTS) -count=1 -timeout 4h ./suite -variant=module -long -run '$(call named,$(FAULTS))'; \
	done

.PHONY: mutants
mutants: | tools ## change the core in small ways, each of which a test must notice; some minutes
	@echo "mutating the core, without the packages below it; what lives is listed, and may for the reasons in CONTRIBUTING.md"
	@$(GO) run github.com/go-gremlins/gremlins/cmd/gremlins@v0.6.0 unleash ./filter --exclude-files / \
	  --workers 1 --timeout-coefficient 30 --output-statuses lt --threshold-efficacy 97

# The services that e2e/docker-compose.yaml has tests in: three pointed at an image, and one whose tests start Envoys of their own.
COMPOSED := e2e e2e-module e2e-distroless e2e-alone

.PHONY: e2e-compose
e2e-compose: | compose ## run the tests in containers, with the contrib and the stock images; needs docker with compose
	@compose() { docker compose --file e2e/docker-compose.yaml "$$@"; }; \
	trap 'compose down --volumes' EXIT; \
	echo "building the images"; compose build; \
	failed=; \
	for service in $(COMPOSED); do \
	  echo "running the tests of the service $$service"; \
	  compose run --rm --no-TTY $$service | awk -v service=$$service -f e2e/tally.awk || failed="$$failed $$service"; \
	done; \
	[ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }

# A cluster of kind's is made for it and deleted, unless there is one whose images are loaded: KUBE_CONTEXT=name. ON_NODE is what
# comes before a command on one of its nodes.
KIND := $(GO) run sigs.k8s.io/kind@v0.33.0
KIND_CLUSTER := healthgate-e2e
ON_NODE ?= docker exec {node}
LOAD := build/kubernetes/kubernetes
$(LOAD): $(e2e_files) e2e/kubernetes/load.yaml | go-alone
	@echo "building $@"
	@mkdir -p $(@D)
	@CGO_ENABLED=0 $(E2E) build -trimpath -ldflags='-s -w' -o $(CURDIR)/$@ ./kubernetes

.PHONY: e2e-kubernetes
e2e-kubernetes: $(LOAD) | kubectl ## roll, kill and drain the manifests in a cluster under load, and say what it cost; half an hour (KUBE_CONTEXT, RUNS=flags); needs docker, kubectl
ifdef KUBE_CONTEXT
	@$(LOAD) run -context '$(KUBE_CONTEXT)' -on-node '$(ON_NODE)' $(RUNS)
else
	@$(MAKE) --no-print-directory image IMAGE=healthgate TAG=latest
	@echo "building healthgate-load:latest"
	@docker build --quiet --tag healthgate-load:latest --file e2e/kubernetes/Dockerfile build/kubernetes
	@trap '$(KIND) delete cluster --name $(KIND_CLUSTER)' EXIT; \
	$(KIND) create cluster --name $(KIND_CLUSTER) --config e2e/kubernetes/kind.yaml --wait 5m; \
	$(KIND) load docker-image --name $(KIND_CLUSTER) healthgate-plugin:latest healthgate-module:latest healthgate-backend:latest healthgate-load:latest; \
	$(LOAD) run -context kind-$(KIND_CLUSTER) -on-node '$(ON_NODE)' $(RUNS)
endif

.PHONY: bench
bench: build $(EMPTY) $(EMPTYGO) $(SMALLEST) fetched ## measure it beside its peers and write e2e/bench/RESULTS.md; up to half an hour, on a quiet machine (BENCH='-only scale')
	@$(E2E) run ./bench $(BENCH)

# The Go plugin is for one version of Envoy: in another one the module alone is compared.
.PHONY: compare
compare: build fetched ## look for a wrong answer: random events, both variants beside Envoy's own filter and a model (FOR=10m, SEED=n, VARIANT=plugin, module or both, ENVOY_VERSION, WITHOUT=kinds, EVENTS=file); SOAK=1 adds load, and fails on growth
	@$(E2E) run ./compare -for $(or $(FOR),1m) -seed $(or $(SEED),0) \
	  $(if $(filter command environment,$(origin VARIANT)),-variant $(VARIANT)) \
	  $(if $(WITHOUT),-without $(WITHOUT)) $(if $(EVENTS),-events $(abspath $(EVENTS))) $(if $(SOAK),-soak)

.PHONY: fuzz
fuzz: | tools ## fuzz each fuzz target for FUZZTIME (1m)
	@for package in $$($(GO) list $(FUZZED)); do \
	  for target in $$($(GO) test -list '^Fuzz' "$$package" | grep '^Fuzz' || true); do \
	    echo "fuzzing $$package $$target for $(FUZZTIME)"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" | tail -n 1; \
	  done; \
	done

.PHONY: run
run: everything build $(DEMO) fetched ## start three backends and Envoy in front; Ctrl-C ends it (VARIANT=plugin or module, HTTPS_PORT, ADMIN_PORT)
	@exec $(DEMO) run -variant $(or $(VARIANT),plugin) -https-port $(HTTPS_PORT) -admin-port $(ADMIN_PORT)

.PHONY: demo
demo: everything build $(DEMO) fetched ## the same as a script that prints each answer and its reason, then exits (VARIANT)
	@exec $(DEMO) script -variant $(or $(VARIANT),plugin)

.PHONY: recording
recording: everything build $(DEMO) fetched ## make docs/demo.svg anew, from a real run (VARIANT)
	@exec $(DEMO) record -variant $(or $(VARIANT),plugin)

.PHONY: cert
cert: $(DEMO) ## make a self-signed certificate in build/tls, to try the manifests out
	@$(DEMO) cert -dir build/tls

.PHONY: image
image: | docker $(if $(PUSH),pushable) ## build the images (IMAGE=name, TAG=latest, PLATFORMS=linux/amd64,linux/arm64 with PUSH=1); needs docker with buildx, and no Go
	@for target in $(IMAGES); do \
	  echo "building $(IMAGE)-$$target:$(TAG)$(if $(PLATFORMS), for $(PLATFORMS))"; \
	  docker buildx build --target $$target $(if $(PLATFORMS),--platform $(PLATFORMS) )--tag $(IMAGE)-$$target:$(TAG) \
	    --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
	    $(if $(PUSH),--push --sbom=true --provenance=mode=max,--load) .; \
	done

# What a release has: both variants for each architecture, with its C compiler, and the command for each system.
DIST_CC      := amd64=x86_64-linux-gnu-gcc arm64=aarch64-linux-gnu-gcc
DIST_SYSTEMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

.PHONY: dist
dist: | tools ## build both variants and the command for each architecture into dist, with checksums; the plugin is named by Envoy's version
	@for pair in $(DIST_CC); do \
	  command -v "$${pair#*=}" >/dev/null || { echo "$${pair#*=} is missing: apt-get install gcc-x86-64-linux-gnu gcc-aarch64-linux-gnu" >&2; exit 1; }; \
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
	@cd dist && sha256sum -- * > SHA256SUMS && cat SHA256SUMS

.PHONY: generate
generate: | tools ## make the generated code again
	@echo "generating e2e/backend/router (the first time, this builds buf)"
	@cd e2e/backend/router && $(GO) run github.com/bufbuild/buf/cmd/buf@v1.59.0 generate

.PHONY: clean
clean: ## remove what was built
	@rm -rf build dist
