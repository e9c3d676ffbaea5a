#!/usr/bin/env bash
# One command takes a real secret through all of cotter: from hardware keys (SoftHSM and a software TPM stand in for an
# HSM and a TPM) to a job, and to the audit record of it.
#
#   bash tools/quickstart.sh             shows it all and leaves nothing behind (but build/ and packages)
#   bash tools/quickstart.sh --keep DIR  leaves it running under DIR: source DIR/env, end it with DIR/stop
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/tools/packages.sh"

keep=""
case "${1:-}" in
--keep)
	[ -n "${2:-}" ] || { echo "usage: quickstart.sh [--keep DIR]" >&2; exit 2; }
	keep=$2
	;;
--help | -h) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
"") ;;
*) echo "usage: quickstart.sh [--keep DIR]" >&2; exit 2 ;;
esac

step=0
say() { step=$((step + 1)); printf '\n%s. %s\n' "$step" "$*"; }
show() { printf '   $ %s\n' "$*"; }
indent() { sed 's/^/   /'; }

# ---- a directory, and an end to everything ---------------------------------------------------------------------------
if [ -n "$keep" ]; then
	mkdir -p "$keep"
	[ -z "$(ls -A "$keep")" ] || { echo "quickstart: $keep is not empty: end what runs there with $keep/stop, or choose another" >&2; exit 1; }
	dir=$(cd "$keep" && pwd)
	[ ${#dir} -lt 80 ] || { echo "quickstart: $dir is too long a path for a Unix socket" >&2; exit 1; }
else
	dir=$(mktemp -d /tmp/cotter.XXXXXX)
fi
case $dir in
*[!A-Za-z0-9._/-]*) echo "quickstart: choose a directory of plain letters, digits and ._- : $dir" >&2; exit 1 ;;
esac
chmod 700 "$dir"

cat >"$dir/stop" <<EOT
#!/bin/sh
# Ends exactly what quickstart started here: by pid, and only while it is still that program.
end() {
	[ -e "$dir/\$1.pid" ] || return 0
	pid=\$(cat "$dir/\$1.pid")
	if [ "\$(cat /proc/\$pid/comm 2>/dev/null)" = "\$1" ]; then
		kill "\$pid" 2>/dev/null
		for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
			[ -d "/proc/\$pid" ] && [ "\$(cut -d' ' -f3 /proc/\$pid/stat 2>/dev/null)" != Z ] || break
			sleep 0.1
		done
		# still there: it hangs
		[ "\$(cat /proc/\$pid/comm 2>/dev/null)" = "\$1" ] && kill -9 "\$pid" 2>/dev/null
	fi
	rm -f "$dir/\$1.pid"
}
end cotterd
end swtpm
[ "\${1:-}" = --quiet ] || echo "stopped; $dir can be removed"
EOT
chmod 755 "$dir/stop"

finish() {
	status=$?
	if [ "$status" != 0 ] || [ -z "$keep" ]; then
		"$dir/stop" --quiet || true
		[ "$status" = 0 ] || { echo; echo "quickstart failed (status $status)."; [ ! -s "$dir/cotterd.log" ] || { echo "cotterd's log:"; indent <"$dir/cotterd.log"; }; } >&2
		if [ -z "$keep" ]; then rm -rf "$dir"; fi
	fi
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- the demonstration -----------------------------------------------------------------------------------------------
say "Installing what is missing (Debian packages)"
need_packages $BUILD_PACKAGES $DEMO_PACKAGES
echo "   all there"

say "Building"
build "$here/build"
bin="$here/build"
echo "   built in $bin: broker/cotterd, broker/cotter-keyd, tools/cotter"
PATH="$bin/tools:$bin/broker:/usr/sbin:$PATH"
unset COTTER_TOKEN COTTER_OPERATOR_SOCKET

say "Making a SoftHSM token (in place of an HSM or a smartcard)"
mkdir "$dir/tokens" "$dir/tpm"
printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$dir/tokens" >"$dir/softhsm2.conf"
pin=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
(umask 077 && printf '%s' "$pin" >"$dir/pin")
SOFTHSM2_CONF="$dir/softhsm2.conf" softhsm2-util --init-token --free --label cotter --pin "$pin" --so-pin "$pin" >/dev/null
echo "   token 'cotter'; its PIN was made up and lies in $dir/pin, mode 0600"

say "Starting swtpm (in place of a TPM 2.0)"
for try in 1 2 3 4 5 6 7 8; do
	port=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 20000 / 2 * 2))
	swtpm socket --tpm2 --tpmstate "dir=$dir/tpm" --server "type=tcp,port=$port,bindaddr=127.0.0.1" \
		--ctrl "type=tcp,port=$((port + 1)),bindaddr=127.0.0.1" --flags not-need-init,startup-clear \
		--daemon --pid "file=$dir/swtpm.pid" 2>"$dir/swtpm.log" && break
	[ "$try" != 8 ] || { cat "$dir/swtpm.log" >&2; exit 1; }
done
rm -f "$dir/swtpm.log"
echo "   on 127.0.0.1, port $port"

say "Making a recovery key: it opens everything with plain 'age' if both are lost. Keep yours offline"
age-keygen -o "$dir/recovery.key" 2>/dev/null
recovery=$(age-keygen -y "$dir/recovery.key")
echo "   $recovery"

say "cotter init: makes a sealing key in each, probes it, writes the configuration"
show "cotter init --provider hsm=pkcs11:... --provider tpm=tpm:swtpm:port=$port --recovery age1..."
cotter init --dir "$dir/etc" --state-dir "$dir/state" --socket "$dir/run/cotter.sock" \
	--provider "hsm=pkcs11:token=cotter?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:$dir/pin" \
	--environment "hsm=SOFTHSM2_CONF=$dir/softhsm2.conf" --readable "hsm=$dir/softhsm2.conf" --writable "hsm=$dir/tokens" \
	--provider "tpm=tpm:swtpm:port=$port" --recovery "$recovery" | grep -v '^next:' | indent
cat >>"$dir/etc/cotter.yaml" <<'EOT'
  release:
    - path: release/*
      allow: [get, list]
EOT

say "Sealing a secret to both, with public recipients only: no broker, no hardware, no PIN"
show "cotter seal --path release/npm-token -o npm-token.age"
export COTTER_CONFIG="$dir/etc/cotter.yaml" COTTER_SOCKET="$dir/run/cotter.sock"
printf 'npm_%s' "$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')" | cotter seal --path release/npm-token -o "$dir/npm-token.age"
head -c 400 "$dir/npm-token.age" | grep -a '^->' | cut -c1-60 | indent

say "Starting the broker"
show "cotterd --config $dir/etc/cotter.yaml"
cotterd --check --config "$dir/etc/cotter.yaml" | indent
cotterd --config "$dir/etc/cotter.yaml" >"$dir/cotterd.log" 2>&1 </dev/null &
echo $! >"$dir/cotterd.pid"
i=0
until cotter status >/dev/null 2>&1; do
	i=$((i + 1))
	[ $i -lt 100 ] && kill -0 "$(cat "$dir/cotterd.pid")" 2>/dev/null || { echo "cotterd does not start" >&2; exit 1; }
	sleep 0.1
done
cotter status | indent

say "Putting the sealed file into the store: acknowledged only after the hardware opened it"
show "cotter put release/npm-token --sealed npm-token.age"
cotter put release/npm-token --sealed "$dir/npm-token.age" | indent

say "Making a capability token for a job, and narrowing it offline: two reads under release/, nothing else"
show "cotter token make --policy release --ttl 10m | cotter token narrow -c 'path under release/' -c 'op = get' -c 'uses <= 2'"
job=$(cotter token make --policy release --ttl 10m | cotter token narrow -c 'path under release/' -c 'op = get' -c 'uses <= 2')
printf '%s' "$job" | cotter token show | indent

say "Running a job that receives the secret, opened by the hardware"
show "cotter run --env NPM_TOKEN=release/npm-token -- sh -c 'echo \"the job has a token of \${#NPM_TOKEN} characters\"'"
COTTER_TOKEN=$job cotter run --env NPM_TOKEN=release/npm-token -- sh -c 'echo "the job has a token of ${#NPM_TOKEN} characters"' | indent

say "The same, once with each kind of hardware alone"
for one in hsm tpm; do
	recipient=$(awk -v p="# $one" 'index($0, p) { print $2 }' "$dir/etc/cotter.yaml")
	printf 'opened by %s' "$one" | cotter seal -r "$recipient" -o "$dir/one.age"
	printf '   %s: ' "$one"
	cotter open "$dir/one.age"
	echo
done
rm -f "$dir/one.age"

say "What the job may not do"
show "COTTER_TOKEN=... cotter get build/other; a second and a third read"
COTTER_TOKEN=$job cotter get build/other 2>&1 | indent || true
COTTER_TOKEN=$job cotter get release/npm-token >/dev/null && echo "   second read: granted"
COTTER_TOKEN=$job cotter get release/npm-token 2>&1 >/dev/null | sed 's/^/   third read: /' || true

say "A job's own token: it ends with the job, and is worth nothing outside of it"
show "cotter run --policy release --give-token -- sh -c 'cotter get release/npm-token'"
cotter run --policy release --give-token -- sh -c 'cotter get release/npm-token >/dev/null && echo "inside: granted"; printf %s "$COTTER_TOKEN" > '"$dir/stolen" 2>&1 | indent
COTTER_TOKEN=$(cat "$dir/stolen") cotter get release/npm-token 2>&1 | sed 's/^/   stolen from it: /' || true

say "The audit record"
show "cotter audit --last 4"
cotter audit --last 4 | indent

if [ -z "$keep" ]; then
	say "Stopping everything and leaving nothing behind"
	exit 0
fi

say "Leaving it running under $dir"
admin=$(cotter token make --policy admin --ttl 24h)
(
	umask 077
	cat >"$dir/env" <<EOT
# Source this. End everything with $dir/stop
export PATH="$bin/tools:$bin/broker:\$PATH"
export COTTER_SOCKET="$dir/run/cotter.sock"
export COTTER_CONFIG="$dir/etc/cotter.yaml"
export COTTER_TOKEN="$admin"
EOT
)
cat <<EOT | indent
. $dir/env                       # an operator's token, the paths
cotter get release/npm-token
echo -n s3cret | cotter put my/secret
cotter list
curl --unix-socket \$COTTER_SOCKET -H "X-Vault-Token: \$COTTER_TOKEN" http://localhost/v1/secret/data/my/secret
cotter status; cotter doctor; cotter audit
$dir/stop                        # ends cotterd and swtpm
EOT
