#!/bin/sh
# Runs every fuzz target for a while: tests/fuzz/run.sh [SECONDS_PER_TARGET] [TARGET...]
# One line a target; exits with 1 on any finding. What was found lies in build-fuzz/findings, the grown corpus in
# build-fuzz/corpus: neither touches the seeds in tests/fuzz/corpus. BUILD=DIR takes another build directory.
set -eu

seconds=${1:-20}
[ $# -eq 0 ] || shift
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
build=${BUILD:-$source/build-fuzz}
targets=${*:-$(cd "$here" && ls fuzz_*.c | sed 's/^fuzz_//; s/\.c$//')}

if [ ! -e "$build/build.ninja" ]; then
	# fuzzer-no-link: the libraries report their edges, the targets alone bring libFuzzer's main
	CC=clang CFLAGS=-fsanitize=fuzzer-no-link meson setup "$build" "$source" -Dfuzz=true \
		-Db_sanitize=address,undefined -Db_lundef=false -Dwerror=false >&2
fi
ninja -C "$build" fuzzers >"$build/fuzz-build.log" 2>&1 || { cat "$build/fuzz-build.log" >&2; exit 1; }

# undefined behaviour is a finding, not a line in a log
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0

# Enough for every limit of common/limits.h that the parser knows, and no more: short inputs find more.
max_len() {
	case $1 in
	age_armor) echo 8192 ;;
	age_header) echo 70000 ;;
	audit_scan) echo 70000 ;;
	bech32) echo 128 ;;
	caveat) echo 160 ;;
	config) echo 8192 ;;
	http) echo 8400 ;;
	macaroon) echo 1400 ;;
	pkcs11_uri) echo 1024 ;;
	tss2_pem) echo 2048 ;;
	*) echo 4096 ;;
	esac
}

# The conformance vectors are seeds, too: each is an age file behind "key: value" lines and an empty one.
seed_vectors() {
	[ -d "$source/tests/data/age-vectors" ] || return 0
	for file in "$source"/tests/data/age-vectors/*; do
		case $file in *.md) continue ;; esac
		grep -aq '^compressed:' "$file" && continue
		if grep -aq '^armored: yes' "$file"; then
			[ "$1" = age_armor ] && { printf '\001'; sed '1,/^$/d' "$file"; } >"$2/${file##*/}"
		elif [ "$1" = age_header ]; then
			sed '1,/^$/d' "$file" >"$2/${file##*/}"
		fi
	done
	return 0
}

failed=0
for target in $targets; do
	work=$build/corpus/$target
	found=$build/findings/$target
	log=$build/fuzz-$target.log
	options=
	mkdir -p "$work" "$found"
	seed_vectors "$target" "$work"
	[ ! -e "$here/dict/$target" ] || options=-dict=$here/dict/$target
	result=ok
	"$build/tests/fuzz/fuzz_$target" -max_total_time="$seconds" -max_len="$(max_len "$target")" -timeout=10 \
		-rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$found/" $options \
		"$work" "$here/corpus/$target" >"$log" 2>&1 || result="FOUND: see $log"
	[ "$result" = ok ] || failed=1
	runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
	printf '%-12s %10s executions  %s\n' "$target" "${runs:-?}" "$result"
done
exit $failed
