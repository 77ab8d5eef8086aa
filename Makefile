# Needs Go and make; everything else is optional, and its absence is said.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS  := -s -w $(if $(VERSION),-X main.version=$(VERSION))
BUILD    := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
FUZZTIME ?= 20s
PACKAGES ?= ./...
KILLS    ?= 2000

# Where goroutines meet; the race detector needs cgo and a C compiler.
RACE_PACKAGES := ./broker/... ./gateway/seglog/... ./uplink/...
STATICCHECK   := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build demo test race bench bench-anomaly crash fuzz conformance lint clean help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

build: ## bin/sluice and bin/firmware-sim, static
	@mkdir -p bin
	$(BUILD) -o bin/sluice ./gateway
	$(BUILD) -o bin/firmware-sim ./firmware-sim

demo: build ## everything in one process, nothing else installed; Ctrl-C ends it
	./bin/sluice demo

test: build ## all tests; says what was skipped and why
	@GO='$(GO)' .ci/test -timeout 20m $(PACKAGES)
	@$(MAKE) --no-print-directory race

race: ## the concurrent packages under the race detector, where a C compiler is installed
	@if command -v gcc >/dev/null 2>&1 || command -v clang >/dev/null 2>&1; then \
		echo "race detector: $(RACE_PACKAGES)"; $(GO) test -race -short -timeout 15m $(RACE_PACKAGES); \
	else echo "race detector: skipped, it needs a C compiler"; fi

bench: build ## the whole gateway beside mosquitto, then every part's benchmarks
	$(GO) run ./gateway/bench
	$(GO) test -run '^$$' -bench . -benchmem -timeout 60m ./...

bench-anomaly: ## the anomaly detectors by the NAB rule; TARGET=folder is a copy of github.com/numenta/NAB
	@test -n '$(TARGET)' || { echo "usage: make bench-anomaly TARGET=folder (with data/ and labels/ of github.com/numenta/NAB)"; exit 2; }
	$(GO) run ./rules/detect/nab '$(TARGET)'

crash: ## kill -9 at random moments, KILLS times (default 2000)
	SLUICE_CRASH_KILLS=$(KILLS) $(GO) test -count=1 -run 'Kill' -timeout 4h -v ./gateway/e2e

fuzz: ## every fuzz target for FUZZTIME (default 20s)
	@set -e; grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do \
		for target in $$(grep -h '^func Fuzz' $$dir/*_test.go | sed 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/'); do \
			echo "== $$dir $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$dir; \
		done; \
	done

conformance: ## the client tests of eclipse/paho.mqtt.testing: make conformance TARGET=FOLDER
	@test -n "$(TARGET)" || { echo "make conformance TARGET=paho.mqtt.testing/interoperability"; exit 2; }
	GO='$(GO)' broker/conformance.sh $(TARGET)

lint: ## gofmt, go vet, and staticcheck where it can be fetched
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go' 2>/dev/null || find . -name '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt -w these:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	@if $(GO) run $(STATICCHECK) -version >/dev/null 2>&1; then $(GO) run $(STATICCHECK) ./...; \
	else echo "staticcheck: skipped, $(STATICCHECK) cannot be fetched"; fi

clean: ## remove what build made
	rm -rf bin coverage.out
