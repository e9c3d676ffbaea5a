#!/bin/sh
# The end of a job, of whichever runner: ACTIONS_RUNNER_HOOK_JOB_COMPLETED (GitHub, Gitea), post_build_script (GitLab), pre-exit
# (Buildkite). It runs among what the job left, and proves nothing against a job that wants to hide something.
set -eu
here=${0%/*}
# shellcheck source=tools/hooks/lib.sh
. "$here/lib.sh"

if [ -z "${COTTER_TOKEN:-}" ]; then
	[ "$denied" = fail ] && [ "$scan" = fail ] || exit 0
	die "there is no COTTER_TOKEN: the job's files were not looked through"
fi
finish "${GITHUB_WORKSPACE:-${CI_PROJECT_DIR:-${BUILDKITE_BUILD_CHECKOUT_PATH:-.}}}"
