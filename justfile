# Development commands. `just` lists them.

default:
    @just --list

# Run a broker, the daemon and a subscriber in one process; saves images in demo/
demo:
    cargo run --release -- demo

# Install what the tests need, and run them all
test *arguments:
    tests/run {{arguments}}

# Check formatting, lints, licences and documentation before a commit
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --features system-tests --locked -- -D warnings
    cargo clippy --no-default-features --locked -- -D warnings
    cargo deny check licenses bans sources
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Send thousands of jobs while the broker, the daemon, the network and the disk fail; prints the table of docs/reliability.md
soak requests="2000" brokers="100" daemons="50":
    SOAK_REQUESTS={{requests}} SOAK_BROKER_KILLS={{brokers}} SOAK_DAEMON_KILLS={{daemons}} SOAK_PATIENCE=600 tests/run --test it soak -- --nocapture
    SOAK_BROKER_KEEPS=0 SOAK_REQUESTS={{requests}} SOAK_BROKER_KILLS={{brokers}} SOAK_DAEMON_KILLS={{daemons}} SOAK_PATIENCE=600 tests/run --test it soak -- --nocapture

# Train a bundled model again: digits, ncsn or swissroll (needs models/train/requirements.txt)
train name minutes="80":
    cd models/train && python {{name}}.py --minutes {{minutes}} && python export.py {{name}} && python measure.py {{name}}

# Train the text-to-emoji model, export it and measure it (needs models/train/emoji/requirements.txt)
emoji *options:
    cd models/train/emoji && python data.py && python tokenizer.py && python train.py all {{options}} && python export.py && python measure.py

# Regenerate the golden files from torch and diffusers (needs models/train/requirements.txt)
golden:
    python tests/golden/make_golden.py

# Export a tiny folder of each family and compare it with torch (needs models/export/requirements.txt)
export-test *arguments:
    cd models/export && python -m pytest -q test_export.py {{arguments}}

# Make the tiny folders of tests/golden/families and their references again (needs models/export/requirements.txt)
families *folders:
    python tests/golden/families/make.py tests/golden/families {{folders}}

# Make the tiny folders of tests/golden/live_more and their references again (needs peft and lycoris-lora too)
live-cases *cases:
    python tests/golden/live_more/make.py tests/golden/live_more {{cases}}

# Run the examples of clients, and the commands of the documents
documents:
    tests/clients
    tests/documents

# Build the documents as a site in target/book, and check its links (needs mdbook)
book:
    docs/make-book

# Build for aarch64 and JetPack 5, run the result under qemu, and compare its samples with x86-64
arm:
    tests/arm

# Compare CUDA with the CPU; needs a GPU, and ORT_DYLIB_PATH with the ONNX Runtime library
gpu program="target/release/denoised":
    tests/gpu {{program}}

# Make the amd64 package; install, run, upgrade and remove it in an overlay file system (as root)
package:
    tests/package

# Build for a board with cross, which calls rustup and needs Docker or podman (docs/jetson.md)
cross:
    cross build --release --no-default-features --target aarch64-unknown-linux-gnu

# Measure every performance target, or only some sections; all of them write docs/performance-results.md. `real` compares with plain Python at real size
bench *sections:
    benches/run {{sections}}

# Measure single functions with criterion; the argument filters by name
parts *words:
    cargo bench --locked --bench parts -- {{words}}

# Count the instructions of steps, noise and requests, and check their limits
instructions:
    tests/instructions

# Measure the daemon's memory over 10,000 jobs; prints the figures of docs/reliability.md
memory:
    cargo build --locked
    tests/memory

# Run jobs that alternate between a folder and a copy of it; options such as --memory "4 GiB" bound the daemon
alternate jobs folder *options:
    cargo build --release --locked
    benches/alternate {{jobs}} {{folder}} {{options}}
