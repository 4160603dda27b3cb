#!/usr/bin/env bash
# Runs tiers of tests and counts: scripts/test.sh t0 t1 t2 t3
#
# The last line is "N passed, N failed" (and "N skipped" where something was). The counts are cargo's
# own, summed; a command of T0 without counts of its own is one check.
set -uo pipefail
cd "$(dirname "$0")/.."

logs=target/test-logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0
failures=()

# run NAME COMMAND...: runs it, shows it, adds its counts.
run() {
    local name=$1 log=$logs/$1.log status p f
    shift
    echo "── $name: $*"
    "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    p=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$log")
    f=$(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$log")
    if ! grep -q '^test result:' "$log"; then
        ((status == 0)) && p=1 || f=1
    elif ((status != 0 && f == 0)); then
        # A test binary that died, or did not build, reports nothing.
        f=1
    fi
    ((passed += p, failed += f))
    ((skipped += $(grep -c '^SKIPPED ' "$log")))
    ((status == 0)) || failures+=("$name: see $log")
}

# A test is a file or a folder.
tests_of() {
    local entry
    for entry in tests/tests/"$1"_*; do [[ -e $entry ]] && echo --test && basename "$entry" .rs; done
}

t0() {
    run format cargo fmt --all --check
    run lint cargo clippy --locked --quiet --workspace --all-targets -- -D warnings
    if cargo deny --version >/dev/null 2>&1; then
        run deny cargo deny --locked --log-level error check bans licenses sources
    elif [[ ${CI:-} == true ]]; then
        run deny sh -c 'echo "cargo-deny is missing: run scripts/setup.sh"; exit 1'
    else
        echo "SKIPPED deny: cargo-deny is missing: run scripts/setup.sh"
        ((skipped += 1))
    fi
    run tree cargo test --locked --package understudy-tests --test layering --test hygiene --no-fail-fast
}

t1() {
    # With the simulator's feature, as the tests want it: else core would be built twice.
    run unit cargo test --locked --workspace --exclude understudy-tests --features understudy-core/sim --no-fail-fast
    local tests
    mapfile -t tests < <(tests_of t1)
    run model cargo test --locked --package understudy-tests --lib --bins "${tests[@]}" --no-fail-fast
}

t2() {
    run binaries cargo build --locked --quiet --workspace --bins
    local tests
    mapfile -t tests < <(tests_of t2)
    # Two at a time: each starts processes of its own.
    run processes cargo test --locked --package understudy-tests "${tests[@]}" --no-fail-fast -- --test-threads 2
}

t3() {
    run binaries cargo build --locked --quiet --workspace --bins
    local tests
    mapfile -t tests < <(tests_of t3)
    run api cargo test --locked --package understudy-tests "${tests[@]}" --no-fail-fast -- --test-threads 2
}

for tier in "$@"; do
    case $tier in
        t0 | t1 | t2 | t3) "$tier" ;;
        *) echo "no such tier: $tier; there are t0, t1, t2 and t3" >&2 && exit 2 ;;
    esac
done

echo
for failure in "${failures[@]}"; do echo "FAILED $failure"; done
((skipped)) && echo "$passed passed, $failed failed, $skipped skipped" || echo "$passed passed, $failed failed"
((failed == 0 && ${#failures[@]} == 0))
