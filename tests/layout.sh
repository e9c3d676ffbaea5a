#!/bin/sh
# The architecture, checked: who may include whom, every header compiles alone, SQL in store*.c, no hardware names outside.
set -u
cd "$(dirname "$0")/.."
build=${1:-build}
bad=0
fail() { echo "layout: $*"; bad=1; }

check() { # room, then the rooms it may include
	room=$1
	shift
	for f in "$room"/*.[ch]; do
		for d in $(sed -n 's/^#include "\([a-z0-9]*\)\/.*/\1/p' "$f" | sort -u); do
			case " $* $room " in
			*" $d "*) ;;
			*) fail "$f includes $d/" ;;
			esac
		done
	done
}
check common
check pkcs11 common
check tpm common
check mask common
check broker common pkcs11 tpm mask
check scan common mask
check tools common pkcs11 tpm broker mask scan

for f in common/*.h mask/*.h scan/*.h pkcs11/*.h tpm/*.h broker/*.h tools/*.h; do
	head -1 "$f" | grep -q '^#pragma once' || fail "$f does not begin with #pragma once"
	printf '#include "%s"\n' "$f" | cc -std=gnu17 -D_GNU_SOURCE -I. -I"$build" $(pkg-config --cflags p11-kit-1 tss2-esys) -fsyntax-only -x c - || fail "$f does not compile alone"
done
for f in common/*.c mask/*.[ch] scan/*.[ch] broker/*.c tools/*.c common/*.h broker/*.h tools/*.h; do
	grep -qE '\b(CK_[A-Z]|CKM_|CKA_|Esys_|TPM2_(RC|ALG|CC|RH|PT)_)' "$f" | grep -v 'CKM_ECDH1' && fail "$f names the hardware's interface"
	case $f in broker/store*.[ch]) ;; *) grep -q 'sqlite3_' "$f" && fail "$f has SQL's interface" ;; esac
done
for f in common/*.[ch] mask/*.[ch] scan/*.[ch] pkcs11/*.[ch] tpm/*.[ch] broker/*.[ch] tools/*.[ch]; do
	[ "$(wc -l <"$f")" -le 600 ] || fail "$f has more than 600 lines"
	grep -q '\bgoto\b' "$f" && fail "$f has a goto"
done
# every command has its man page and its completion; every config key is explained
for c in $(sed -n 's/^\t{"\([a-z]*\)", "[-A-Zm].*/\1/p' tools/main.c); do
	grep -q "^\*$c\*" doc/cotter.1.scd || fail "doc/cotter.1.scd does not tell of '$c'"
	grep -qw "$c" tools/completion/cotter || fail "the completion does not know '$c'"
done
for k in $(sed -n 's/^\t{"\([a-z_]*\)", YAML_.*/\1/p' broker/config.c); do
	grep -q "\*$k\*" doc/cotter.yaml.5.scd || fail "doc/cotter.yaml.5.scd does not tell of '$k'"
done
exit $bad
