#!/usr/bin/env bash
# Fuzzes decoders with libFuzzer: scripts/fuzz.sh SECONDS [TARGET...]; all targets if none is named.
#
# What is found new goes to target/fuzz; an input that fails goes to tests/fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?how many seconds for each target}
shift
targets=("$@")
if ((${#targets[@]} == 0)); then
    for file in tests/fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
for target in "${targets[@]}"; do
    if [[ ! -e tests/fuzz/fuzz_targets/$target.rs ]]; then
        echo "no fuzz target $target; there are: $(cd tests/fuzz/fuzz_targets && echo *.rs | sed 's/\.rs//g')" >&2
        exit 2
    fi
done

lacks=0
lack() {
    echo "MISSING $1" >&2
    lacks=1
}
rustc +nightly --version >/dev/null 2>&1 ||
    lack "a nightly toolchain, for libFuzzer's coverage: rustup toolchain install nightly --profile minimal"
cargo fuzz --version >/dev/null 2>&1 || lack "cargo-fuzz: cargo install --locked cargo-fuzz"
c++ --version >/dev/null 2>&1 || lack "a C++ compiler, for libFuzzer: apt-get install g++"
if ((lacks)); then
    echo "Without them the same targets run shortly: cargo test -p understudy-tests --test t1_fuzz" >&2
    exit 2
fi

# No address sanitizer: unsafe code is only in the runtime's mapped memory, which it does not see.
cargo +nightly fuzz build --fuzz-dir tests/fuzz --sanitizer none
status=0
for target in "${targets[@]}"; do
    grown=target/fuzz/$target
    mkdir -p "$grown"
    echo "── $target: $seconds s"
    cargo +nightly fuzz run --fuzz-dir tests/fuzz --sanitizer none "$target" \
        "$grown" "tests/fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 \
        -print_final_stats=1 || status=1
done
exit $status
