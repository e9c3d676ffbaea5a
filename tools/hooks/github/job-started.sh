#!/bin/sh
# ACTIONS_RUNNER_HOOK_JOB_STARTED of GitHub's and of Gitea's runner. What it prints is read by the runner, line by line; what it
# writes to GITHUB_ENV only when it has ended: so masks come first.
set -eu
here=${0%/*}
# shellcheck source=tools/hooks/lib.sh
. "$here/../lib.sh"

# The whole, as a workflow command wants it, and each line: a runner may know one kind alone.
mask() {
	printf '%s' "$1" | LC_ALL=C awk '
		{ gsub(/%/, "%25"); gsub(/\r/, "%0D"); all = all (NR > 1 ? "%0A" : "") $0 }
		/[^ \t]/ && !/^(%0D)+$/ { line[++n] = $0 }
		END { if (all ~ /[^ \t]/) print "::add-mask::" all; for (i = 1; i <= n; i++) if (line[i] != all) print "::add-mask::" line[i] }'
}

# NAME VALUE: no value can end it, as nobody knows how it ends.
give() {
	end=cotter_$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	[ ${#end} -eq 39 ] || die "no random numbers"
	printf '%s<<%s\n%s\n%s\n' "$1" "$end" "$2" "$end" >>"$GITHUB_ENV"
}

if [ "${1:-}" = export ]; then # within cotter run
	shift
	for name; do
		value=$(printenv "COTTER_SECRET_$name" && printf x)
		mask "${value%??}"
	done
	for name; do
		value=$(printenv "COTTER_SECRET_$name" && printf x)
		give "$name" "${value%??}"
	done
	exit
fi

# The worker, which lives as long as the job. Gitea's runner has no such process: there job-completed.sh ends the job, or the role's ttl.
login "$PPID" "$(job_name github "${GITHUB_REPOSITORY:-}" "${GITHUB_RUN_ID:-}" "${GITHUB_JOB:-}")" || refused $?
mask "$COTTER_TOKEN"
[ -z "$secrets" ] || with_secrets "$0" || { end_job && exit 1; }
give COTTER_TOKEN "$COTTER_TOKEN"
give COTTER_JOB "$COTTER_JOB"
