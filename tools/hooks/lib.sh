# What the hooks of all runners share: read by them, not run.
# shellcheck shell=sh

job_umask=$(umask) job_path=$PATH
umask 077
# a job may have set them: which cotter a hook calls, and which broker that asks, is the operator's word
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
unset COTTER_SOCKET COTTER_OPERATOR_SOCKET COTTER_CONFIG

say() {
	printf 'cotter: %s\n' "$*" >&2
}

die() {
	say "$@"
	exit 1
}

conf=/etc/cotter/hooks.conf
role='' audience='' ttl='' denied=fail secrets='' scan=fail scan_paths='' builds=''
[ -r "$conf" ] || die "$conf cannot be read: this job gets no secrets"
# shellcheck source=tools/hooks/hooks.conf
. "$conf"
[ -n "$role" ] || die "$conf names no role: this job gets no secrets"
case $denied in fail | go-on) ;; *) die "$conf: denied is fail or go-on" ;; esac
case $scan in fail | warn | off) ;; *) die "$conf: scan is fail, warn or off" ;; esac

# Words of the runner's, of which a job may have chosen some: one word that the broker takes for a name.
job_name() {
	printf '%s' "$*" | LC_ALL=C tr -c 'A-Za-z0-9._@+-' '-' | cut -c 1-64
}

id_token() {
	if [ -n "${ACTIONS_ID_TOKEN_REQUEST_URL:-}" ]; then
		printf 'header = "Authorization: Bearer %s"\n' "$ACTIONS_ID_TOKEN_REQUEST_TOKEN" |
			curl -q -sSf --max-time 60 --config - -G --data-urlencode "audience=$audience" "$ACTIONS_ID_TOKEN_REQUEST_URL" |
			sed -n 's/.*"value" *: *"\([^"]*\)".*/\1/p'
	elif [ -n "${BUILDKITE_JOB_ID:-}" ]; then
		buildkite-agent oidc request-token --audience "$audience"
	else
		printf '%s' "${COTTER_JWT:-${CUSTOM_ENV_COTTER_JWT:-}}"
	fi
}

# LEADER NAME: sets COTTER_TOKEN and COTTER_JOB; else the exit status of cotter, 3 when it was denied.
login() {
	set -- --role "$role" --leader "$1" --name "$2" --json
	[ -z "$ttl" ] || set -- "$@" --ttl "$ttl"
	unset COTTER_TOKEN
	if [ -n "$audience" ]; then
		token=$(id_token) || token=''
		[ -n "$token" ] || { say "this job has no ID token to show" && return 3; }
		reply=$(printf '%s' "$token" | cotter login "$@" --jwt-file -) || return
	else
		reply=$(cotter login "$@") || return
	fi
	token=${reply#*'"token":"'}
	job=${reply#*'"job":"'}
	export COTTER_TOKEN="${token%%'"'*}" COTTER_JOB="${job%%'"'*}"
	case $COTTER_TOKEN in cot1_*) ;; *) return 1 ;; esac
}

# STATUS of login: the end of the hook.
refused() {
	say "this job gets no secrets"
	if [ "$denied" = go-on ] && [ "$1" -eq 3 ]; then
		exit 0
	fi
	exit 1
}

# Calls PROGRAM export NAME..., with the secrets of hooks.conf as COTTER_SECRET_NAME in its environment: one request, all or none.
with_secrets() {
	set -- -- "$1" export
	for secret in $secrets; do
		set -- "$@" "${secret%%=*}"
	done
	for secret in $secrets; do
		set -- --env "COTTER_SECRET_$secret" "$@"
	done
	cotter run --no-mask "$@"
}

# A command as the job would have started it.
as_job() (
	umask "$job_umask"
	PATH=$job_path
	exec "$@"
)

# PATH...: looks for what the job received. Fails when the job has to.
scan_gate() (
	[ "$scan" != off ] || return 0
	# shellcheck disable=SC2086 # a list
	[ -z "$scan_paths" ] || set -- $scan_paths
	status=0
	cotter scan --job --no-rules -- "$@" || status=$?
	case $status in
	0) return 0 ;;
	1) say "secrets that this job received stand in its files" ;;
	*) say "the job's files could not be looked through" ;;
	esac
	[ "$scan" = warn ]
)

end_job() {
	cotter job end || say "the job could not be ended: its token lives until its leader ends, or its time"
}

# PATH: the gate, and then the job's end, whatever was found.
finish() (
	result=0
	scan_gate "$1" || result=1
	end_job
	return $result
)
