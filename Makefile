# Needs Go and make; everything else is optional, and its absence is said.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS  := -s -w $(if $(VERSION),-X main.version=$(VERSION))
BUILD    := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
FUZZTIME ?= 20s
PACKAGES ?= ./...
KILLS    ?= 2000
SOAK     ?= 10m

# Where goroutines meet; the race detector needs cgo and a C compiler.
RACE_PACKAGES := ./broker/... ./gateway/seglog/... ./uplink/...
STATICCHECK   := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The dashboard, where npm is installed. It is built again when a file of it changed.
UI        := gateway/console/ui
UI_FILES  := $(shell find $(UI) -type f -not -path '*/node_modules/*' -not -path '*/dist/*')
NPM       ?= npm
NODE_IS   := const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || a === 20 && b >= 19 ? 0 : 1)

.PHONY: build ui demo test race bench bench-anomaly crash week soak fuzz conformance lint clean help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

build: ui ## bin/sluice and bin/firmware-sim, static, with the dashboard where npm is installed
	@mkdir -p bin
	$(BUILD) -o bin/sluice ./gateway
	$(BUILD) -o bin/firmware-sim ./firmware-sim

ui: ## the dashboard, into gateway/console/ui/dist
	@if ! command -v $(NPM) >/dev/null 2>&1 || ! node -e '$(NODE_IS)' 2>/dev/null; then \
		echo "dashboard: not built, it needs npm with Node 20.19 or later; the plain page stands in for it"; \
	elif ! $(MAKE) -s --no-print-directory $(UI)/dist/index.html; then \
		if [ "$$CI" = true ]; then exit 1; fi; \
		echo "dashboard: not built, see above; $$(if [ -e $(UI)/dist/index.html ]; then echo "the one from before"; else echo "the plain page"; fi) stands in for it"; \
	fi

$(UI)/dist/index.html: $(UI)/node_modules/.package-lock.json $(UI_FILES)
	cd $(UI) && $(NPM) run --silent build || { rmdir dist 2>/dev/null; exit 1; } # an empty folder cannot be embedded

$(UI)/node_modules/.package-lock.json: $(UI)/package.json $(UI)/package-lock.json
	cd $(UI) && $(NPM) ci --no-audit --no-fund
	@touch $@

demo: build ## everything in one process, nothing else installed; Ctrl-C ends it
	./bin/sluice demo

test: build ## all tests; says what was skipped and why
	@if [ -d $(UI)/node_modules ]; then cd $(UI) && $(NPM) test --silent; else echo "dashboard's own tests: skipped, they need npm"; fi
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

soak: ## hostile MQTT clients against the built gateway for SOAK (default 10m; an evening: SOAK=8h)
	SLUICE_SOAK=$(SOAK) $(GO) test -count=1 -run 'HostileClients' -timeout 0 -v ./gateway/e2e

week: ## seven simulated days offline on 200 MB, with kills and a store that answers nonsense (about 3 minutes)
	SLUICE_WEEK=1 $(GO) test -count=1 -run TestWeek -timeout 30m -v ./gateway

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
	rm -rf bin coverage.out $(UI)/dist $(UI)/node_modules
