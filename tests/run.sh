#!/usr/bin/env bash
# Installs what is missing, builds, and runs the whole suite. BUILD=dir chooses another build directory.
set -eu
cd "$(dirname "$0")/.."
. tools/packages.sh

need_packages $BUILD_PACKAGES $DEMO_PACKAGES $TEST_PACKAGES
# Debian's own npm only where no node is there: it brings four hundred packages
command -v node >/dev/null && command -v npm >/dev/null || need_packages nodejs npm

BUILD=${BUILD:-build}
build "$BUILD"
# a suite that lost its unit tests must not pass
meson introspect "$BUILD" --tests | grep -q '"unit secret"' || { echo "run.sh: the unit tests were not configured: is libcmocka-dev there?" >&2; exit 1; }

# the third-party clients that only npm has
if ! [ -d tests/clients/node_modules/age-encryption ] || ! [ -d tests/clients/node_modules/macaroon ] || ! [ -d tests/clients/node_modules/node-vault ]; then
	(cd tests/clients && npm install --no-package-lock --no-audit --no-fund --no-update-notifier --loglevel=error)
fi

exec meson test -C "$BUILD" --no-rebuild --print-errorlogs "$@"
