# Millpool's commands. Everything is built with one profile (--release): what is tested is what runs.

SHELL := /bin/sh
CARGO ?= cargo
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
BINARIES := -p millpool-scheduler -p millpool-node-agent -p millpool-cli -p millpool-solver -p millpool-demo \
	-p millpool-benches -p millpool-faults
say = @printf '\n== %s\n'

.DEFAULT_GOAL := help
.PHONY: help setup test-setup build demo test fmt clippy unit doctest deps bench-load bench-agents bench-failures bench-etcd bench-failover bench-overload \
	bench-year soak bench-fjsp \
	fuzz fuzz-build second-stack second-stack-setup faults faults-bugs faults-setup sim sim-bugs sim-build bench-ablation bench-alliance bench-solver bench-kernels clean-demo

help: ## Show this
	@echo "Millpool: make TARGET"
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{ printf "  %-14s %s\n", $$1, $$2 }'
	@echo
	@echo "make demo SECONDS=90 [ORDERS=720] [SEED=1]   ends by itself, checks included"
	@echo "make faults FAULTS='--only kill-one --rounds 50'   see target/release/millpool-faults --list"
	@echo "make bench-load LOAD='--clients 1,16,64'     see target/release/millpool-load --help"
	@echo "make bench-fjsp FJSP='--seconds 60 --every 3', bench-alliance ALLIANCE='--machines 60 --peer'"

setup: ## Install the system packages that are missing (cmake, clang, libclang, make, g++, pkg-config, python3)
	@missing=""; \
	need() { command -v "$$1" >/dev/null 2>&1 || missing="$$missing $$2"; }; \
	need cmake cmake; need clang clang; need make make; need g++ g++; need pkg-config pkg-config; need python3 python3; \
	ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1 || missing="$$missing libclang-dev"; \
	if [ -n "$$missing" ]; then \
		command -v apt-get >/dev/null 2>&1 || { echo "please install:$$missing"; exit 1; }; \
		echo "== Installing$$missing"; \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
	@command -v $(CARGO) >/dev/null 2>&1 || { echo "cargo is missing: install Rust 1.90 or later from https://rustup.rs"; exit 1; }

test-setup: ## Install what tests need besides (mosquitto, python3-venv)
	@missing=""; \
	[ -x /usr/sbin/mosquitto ] || command -v mosquitto >/dev/null 2>&1 || missing="$$missing mosquitto"; \
	python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$$missing python3-venv"; \
	if [ -n "$$missing" ]; then \
		command -v apt-get >/dev/null 2>&1 || { echo "please install:$$missing"; exit 1; }; \
		echo "== Installing$$missing"; \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

build: setup ## Build every binary
	$(say) "Building (a quarter of an hour on two cores the first time)"
	@$(CARGO) build --release --locked --bins $(BINARIES)

demo: build ## An alliance of 23 members on this machine; runs until Ctrl-C, or SECONDS=90
	$(say) "The demonstration$(if $(SECONDS), of $(SECONDS) seconds)"
	@target/release/millpool-demo $(if $(SECONDS),--seconds $(SECONDS)) $(if $(ORDERS),--orders $(ORDERS)) \
		$(if $(SEED),--seed $(SEED)) $(DEMO)

test: setup test-setup fmt clippy unit doctest sim sim-bugs ## Formatting, lints, tests, doc tests, simulated clusters
	$(say) "All tests passed"

fmt:
	$(say) "Formatting"
	@$(CARGO) fmt --all --check

clippy:
	$(say) "Lints"
	@$(CARGO) clippy --release --locked --quiet --workspace --all-targets -- -D warnings

# The process tests look for the built binaries, so they are built first. The simulation stays apart: with it known bugs
# could be planted in what is tested.
unit: build
	$(say) "Tests"
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run --release --locked --workspace --exclude millpool-sim --lib --bins --tests --cargo-quiet --status-level fail --final-status-level flaky; \
	else \
		$(CARGO) test --release --locked --quiet --workspace --exclude millpool-sim --lib --bins --tests; \
	fi

SEEDS ?= 200
FROM ?= 1

sim: sim-build ## Whole clusters under faults in simulated time: make sim SEEDS=1000 FROM=1
	$(say) "Simulated clusters: $(SEEDS) seeds (a second each on two cores)"
	@target/release/millpool-sim --seeds $(SEEDS) --from $(FROM)

# Within how many seeds each must be found.
SIM_BUGS := skip-fsync=50 forget-vote=100 answer-before-commit=50 apply-twice=50 stale-read=50 any-body=20 \
	unchecked-plan=50 drop-watch-event=100 raise-early=20 forget-too-soon=50 stay-silent=50

sim-bugs: sim-build ## Known bugs are planted one by one, and each must be found by the simulation
	$(say) "Planted bugs"
	@for bug in $(SIM_BUGS); do target/release/millpool-sim --quiet --bug $${bug%=*} --seeds $${bug#*=} || exit 1; done
	@if target/release/millpool-sim --quiet --bug spoilt-plan --seeds 10; then \
		echo "it must be refused, and was not"; exit 1; fi

# The whole workspace is named, so that dependencies are built with the features that they have for everything else.
sim-build: setup
	@$(CARGO) build --release --locked --quiet --workspace --bin millpool-sim

faults: build faults-setup ## Real nodes killed, frozen, cut off, out of disk and damaged, restarted, upgraded, restored (root; eight minutes)
	$(say) "Faults of real processes"
	@$(SUDO) target/release/millpool-faults $(FAULTS)

# What is planted must be found: by each of these the run breaks, with exit code 1.
faults-bugs: build ## Faults with something planted that must be found
	$(say) "Planted in real processes"
	@for bug in kill-one=lose kill-one=die kill-one=deaf damage=swallow; do \
		target/release/millpool-faults --only $${bug%=*} --plant $${bug#*=} --rounds 1; code=$$?; \
		[ $$code = 1 ] || { echo "$$bug must end with exit code 1, and ended with $$code"; exit 1; }; done

second-stack: build second-stack-setup ## The agent reads a machine on node-opcua, another stack than the tests' own (npm; two minutes)
	$(say) "A machine on node-opcua"
	@python3 node-agent/tests/counterparts/check_node_opcua.py target/release/millpool-node-agent target/node-opcua

second-stack-setup: ## Install what second-stack needs besides (nodejs, npm)
	@missing=""; \
	need() { command -v "$$1" >/dev/null 2>&1 || missing="$$missing $$2"; }; \
	need node nodejs; need npm npm; \
	if [ -n "$$missing" ]; then \
		command -v apt-get >/dev/null 2>&1 || { echo "please install:$$missing"; exit 1; }; \
		echo "== Installing$$missing"; \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

faults-setup: ## Install what faults needs besides (iproute2, nftables, e2fsprogs, mount)
	@missing=""; \
	need() { command -v "$$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$$1" ] || missing="$$missing $$2"; }; \
	need ip iproute2; need nft nftables; need mkfs.ext4 e2fsprogs; need mount mount; \
	if [ -n "$$missing" ]; then \
		command -v apt-get >/dev/null 2>&1 || { echo "please install:$$missing"; exit 1; }; \
		echo "== Installing$$missing"; \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

FUZZ_SECONDS ?= 60
FUZZ ?= $(shell sed -n 's/.*Target { name: "\([a-z-]*\)".*/\1/p' fuzz/src/lib.rs)

fuzz: fuzz-build ## Bytes that nobody meant, for every reader: make fuzz FUZZ_SECONDS=3600 FUZZ="entry state"
	@for target in $(FUZZ); do \
		printf '\n== %s, %s s\n' $$target $(FUZZ_SECONDS); mkdir -p target/fuzz/$$target fuzz/corpus/$$target; \
		MILLPOOL_FUZZ=$$target MILLPOOL_FUZZ_SEEDS=target/fuzz/$$target target/release/millpool-fuzz \
			-max_total_time=$(FUZZ_SECONDS) -max_len=65536 -timeout=30 -rss_limit_mb=4096 -print_final_stats=1 \
			-artifact_prefix=target/fuzz/found-$$target- -close_fd_mask=1 \
			target/fuzz/$$target fuzz/corpus/$$target 2>target/fuzz/$$target.log || { tail -40 target/fuzz/$$target.log; exit 1; }; \
		grep -E 'stat::number_of_executed_units|stat::new_units_added|cov: ' target/fuzz/$$target.log | tail -3; done

fuzz-build: setup
	$(say) "Building the fuzzer (our own crates with coverage; the first time ten minutes)"
	@RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/fuzz/instrument $(CARGO) build --release --locked --quiet -p millpool-fuzz --features guided

doctest:
	$(say) "Documentation tests"
	@$(CARGO) test --release --locked --quiet --workspace --exclude millpool-sim --doc

deps: ## Licences and bans of all dependencies (needs cargo-deny)
	$(say) "Licences and bans"
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "cargo-deny is missing: cargo install --locked cargo-deny"; exit 1; }
	@$(CARGO) deny --log-level error check licenses bans sources

bench-load: build ## Throughput, latency and failover of a three-node cluster on this machine
	$(say) "Load"
	@target/release/millpool-load $(LOAD)

bench-etcd: build ## Bookings beside the puts of three members of etcd, in turn on this machine
	$(say) "Beside etcd (four minutes)"
	@command -v etcd >/dev/null 2>&1 || { $(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends etcd-server >/dev/null; }
	@target/release/millpool-load --beside-etcd 3 --clients 1,16,64,256 --machines 300 --optimise-for-ms 0 $(LOAD)

bench-fjsp: build ## Makespans and bounds on the public flexible job shops, against best known
	$(say) "Flexible job shops"
	@python3 benches/solver/bench.py fjsp $(FJSP)

bench-alliance: build ## Plans, bounds and speed on drawn alliances of 12 to 3,000 machines
	$(say) "Alliances"
	@$(CARGO) build --release --locked --quiet -p millpool-solver --example alliance_instance
	@python3 benches/solver/bench.py alliance $(ALLIANCE)

bench-ablation: build ## What the search and the integer master each contribute on drawn alliances
	$(say) "Search and master (ten minutes)"
	@$(CARGO) build --release --locked --quiet -p millpool-solver --example alliance_instance
	@python3 benches/solver/bench.py ablation $(ABLATION)

bench-solver: ## Quotes, repair, limits, cancel and memory of the solver, against its marks
	$(say) "The solver's marks (about ten minutes)"
	@$(CARGO) run --release --locked --quiet -p millpool-solver --example marks -- $(MARKS)

bench-kernels: ## The solver's kernels, timed: placement, try, tabu move, check, bound
	$(say) "Kernels"
	@$(CARGO) bench --locked --quiet -p millpool-solver --bench kernels -- $(KERNELS)

bench-failover: build ## A hundred leaders killed under load (eleven minutes)
	$(say) "Failover"
	@target/release/millpool-load --kills 100 $(LOAD)

bench-agents: build ## 300 plants' agents, 3,000 machines with a change of state a second each
	$(say) "Many agents"
	@target/release/millpool-load --agents 300 --seconds 30 --optimise-for-ms 0 $(LOAD)
	$(say) "A week of the same in a minute, and who asks for its indicators"
	@target/release/millpool-load --agents 300 --seconds 60 --scale 10000 --optimise-for-ms 0 $(LOAD)

bench-failures: build ## Machines that fail among 300: until plants and buyers know where the work goes
	$(say) "Machines that fail"
	@target/release/millpool-load --failures 200 --machines 300 $(LOAD)

bench-overload: build ## Ten times what the cluster bears: what still gets done
	$(say) "Overload"
	@target/release/millpool-load --overload 10 --machines 300 $(LOAD)

bench-year: build ## A year's 200,000 bookings known: snapshots, starts, memory (ten minutes)
	$(say) "A year"
	@target/release/millpool-load --year 200000 --machines 300 $(LOAD)

MINUTES ?= 30

soak: build ## Most of what the cluster bears, for MINUTES=30
	$(say) "Soak: $(MINUTES) minutes"
	@target/release/millpool-load --soak $(MINUTES) --machines 300 $(LOAD)

clean-demo: ## Remove what the demonstration left
	@rm -rf .demo
