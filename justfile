# What one does with this project; `just` lists it.

default:
    @just --list

# A broker, the daemon and a subscriber in one process: images in demo/
demo:
    cargo run --release -- demo

# All tests, with everything that they need
test *arguments:
    tests/run {{arguments}}

# What has to hold before a commit
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --features system-tests --locked -- -D warnings
    cargo clippy --no-default-features --locked -- -D warnings
    cargo deny check licenses bans sources
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Thousands of jobs while the broker, the daemon and the network fail; prints the table of docs/reliability.md
soak requests="2000" brokers="100" daemons="50":
    SOAK_REQUESTS={{requests}} SOAK_BROKER_KILLS={{brokers}} SOAK_DAEMON_KILLS={{daemons}} SOAK_PATIENCE=600 tests/run --test it soak -- --nocapture
    SOAK_BROKER_KEEPS=0 SOAK_REQUESTS={{requests}} SOAK_BROKER_KILLS={{brokers}} SOAK_DAEMON_KILLS={{daemons}} SOAK_PATIENCE=600 tests/run --test it soak -- --nocapture

# Train a bundle again: digits, ncsn or swissroll (needs models/train/requirements.txt)
train name minutes="80":
    cd models/train && python {{name}}.py --minutes {{minutes}} && python export.py {{name}} && python measure.py {{name}}

# Make the golden files again from torch and diffusers (needs models/train/requirements.txt)
golden:
    python tests/golden/make_golden.py

# Build for aarch64 as JetPack 5 needs it, run it under qemu, and compare with this machine's
arm:
    tests/arm

# Compare CUDA with the processor where there is a GPU; ORT_DYLIB_PATH names the library of ONNX Runtime
gpu program="target/release/denoised":
    tests/gpu {{program}}

# Make the amd64 package, install, run, upgrade and remove it in an overlay over this system (as root)
package:
    tests/package

# Build for a board by cross, which calls rustup and needs Docker or podman (docs/jetson.md)
cross:
    cross build --release --no-default-features --target aarch64-unknown-linux-gnu

# Speed against every target, beside the bare engine and diffusers; writes docs/performance.md
bench *sections:
    benches/run {{sections}}

# The parts by themselves, with criterion; a word of a name for some of them
parts *words:
    cargo bench --locked --bench parts -- {{words}}

# The instructions of steps, noise and requests against their bounds
instructions:
    tests/instructions

# The daemon's memory over ten thousand jobs; prints the figures of docs/reliability.md
memory:
    cargo build --locked
    tests/memory
