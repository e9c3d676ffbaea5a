# Sourced by quickstart.sh and tests/run.sh: installs the Debian packages that are missing, by name.

BUILD_PACKAGES="gcc meson ninja-build pkg-config libsodium-dev libssl-dev libp11-kit-dev libtss2-dev libsqlite3-dev \
libyaml-dev libjansson-dev libjose-dev libseccomp-dev libpq-dev libarchive-dev"
DEMO_PACKAGES="softhsm2 swtpm age"
TEST_PACKAGES="libcmocka-dev curl sqlite3 opensc openssl tpm2-tools p11-kit p11-kit-modules python3 python3-pymacaroons python3-seccomp python3-hvac python3-prometheus-client jose \
procps util-linux scdoc bash-completion git libengine-pkcs11-openssl osslsigncode gnutls-bin openssh-client openssh-server \
openjdk-17-jdk-headless gnupg gnupg-pkcs11-scd postgresql-15 python3-botocore python3-pip"

# need_packages NAME…: 0 when all are there or could be installed.
need_packages() {
	local missing="" p
	for p in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing="$missing $p"
	done
	[ -n "$missing" ] || return 0
	echo "installing:$missing"
	local as=""
	if [ "$(id -u)" != 0 ]; then
		if sudo -n true 2>/dev/null; then
			as="sudo"
		else
			echo "this needs root once. Run: apt-get install$missing" >&2
			return 1
		fi
	fi
	$as env DEBIAN_FRONTEND=noninteractive apt-get update -q >/dev/null &&
		$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >/dev/null
}

# build DIR: configures once, and again when packages came since that it looked for in vain; builds; quiet unless it fails.
build() {
	local out
	if [ ! -e "$1/build.ninja" ]; then
		out=$(meson setup "$1" 2>&1) || { echo "$out" >&2; return 1; }
	elif [ "$1/build.ninja" -ot /var/lib/dpkg/status ]; then
		out=$(meson configure "$1" --clearcache 2>&1 && meson setup --reconfigure "$1" 2>&1) || { echo "$out" >&2; return 1; }
		touch "$1/build.ninja"
	fi
	out=$(ninja -C "$1" 2>&1) || { echo "$out" >&2; return 1; }
}
