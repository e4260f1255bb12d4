# Everything a contributor runs. `make` alone lists the targets.

.DEFAULT_GOAL := help
.PHONY: help demo test bench fmt ui
MAKEFLAGS += --no-print-directory

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Build and run a whole rollout against a stand-in provider (ARGS=--keep leaves it running)
	@scripts/setup.sh demo
	cargo build --package serin-cli
	target/debug/serin demo $(ARGS)

# Same profile everywhere, so nothing is compiled twice. The tests come last: they end with the counts.
test: ## What CI runs: format, lints, documentation, all tests
	@scripts/setup.sh test
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --package serin-core --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
	cargo test --locked --workspace --no-fail-fast

ui: ## Check the dashboard's sources and build ui/dist from them
	@scripts/setup.sh ui
	cd ui && npm run --silent check && npm run --silent build -- --logLevel warn

bench: ## Measure in release mode; the gateway beside nginx as a plain proxy (ARGS="json pins" runs parts)
	@scripts/setup.sh bench
ifneq ($(or $(filter numbers,$(ARGS)),$(if $(ARGS),,all)),)
	cargo bench --locked --package serin-sim --bench numbers
endif
ifneq ($(or $(filter-out numbers,$(ARGS)),$(if $(ARGS),,all)),)
	cargo bench --locked --package serin-cli --bench serving -- $(filter-out numbers,$(ARGS))
endif

fmt: ## Format all Rust code
	cargo fmt --all
