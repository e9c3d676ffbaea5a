#include "pkcs11/module.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "pkcs11/ckr.h"

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>

/* The "module:" line of a p11-kit module configuration, made absolute. */
static int configured_path(const char *name, char *ret, size_t size, struct err *err)
{
	static const char *const dirs[] = {"/etc/pkcs11/modules", P11_PACKAGE_DIR};
	CLEANUP(cleanup_fclose) FILE *f = NULL;
	char line[1024], *value;

	if (strchr(name, '/'))
		return err_set(err, ERR_INPUT, "module-name is a name, not a path: use module-path");
	for (size_t i = 0; i < 2 && !f; i++) {
		snprintf(line, sizeof(line), "%s/%s.module", dirs[i], name);
		f = fopen(line, "re");
	}
	if (!f)
		return err_set(err, ERR_INPUT, "p11-kit has no module '%s': see 'p11-kit list-modules'", name);
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, "module:", 7) != 0)
			continue;
		value = line + 7 + strspn(line + 7, " \t");
		value[strcspn(value, " \t\r\n")] = '\0';
		snprintf(ret, size, "%s%s%s", value[0] == '/' ? "" : P11_MODULE_DIR, value[0] == '/' ? "" : "/", value);
		return 0;
	}
	return err_set(err, ERR_INPUT, "p11-kit's configuration of '%s' names no module", name);
}

static int load(struct module *m, struct err *err)
{
	const char *path = p11_kit_uri_get_module_path(m->uri), *name = p11_kit_uri_get_module_name(m->uri);
	char buf[LIMIT_FILE_PATH_LEN];
	int r;

	if (!path && !name)
		return err_set(err, ERR_INPUT,
			       "the URI names no module: add ?module-path=/absolute/path.so or ?module-name=NAME");
	if (!path) {
		r = configured_path(name, buf, sizeof(buf), err);
		if (r < 0)
			return r;
		path = buf;
	}
	if (path[0] != '/')
		return err_set(err, ERR_INPUT, "module-path must be absolute, not '%.200s'", path);
	if (access(path, R_OK) < 0)
		return err_errno(err, errno, "PKCS#11 module %.300s", path);
	m->f = p11_kit_module_load(path, P11_KIT_MODULE_CRITICAL);
	if (!m->f)
		return err_set(err, ERR_HARDWARE, "PKCS#11 module %.200s does not load: %.200s", path, p11_kit_message());
	r = ckr_err(p11_kit_module_initialize(m->f), "C_Initialize", err);
	if (r < 0) {
		p11_kit_module_release(m->f);
		m->f = NULL;
	}
	return r;
}

int module_open(const char *uri, struct module *m, struct err *err)
{
	int r;

	*m = (struct module){.uri = p11_kit_uri_new()};
	r = m->uri ? p11_kit_uri_parse(uri, P11_KIT_URI_FOR_ANY, m->uri) : P11_KIT_URI_UNEXPECTED;
	if (r != P11_KIT_URI_OK)
		r = err_set(err, ERR_INPUT, "not a PKCS#11 URI (RFC 7512): %s", p11_kit_uri_message(r));
	else if (p11_kit_uri_get_pin_value(m->uri))
		r = err_set(err, ERR_INPUT, "pin-value puts the PIN into the configuration: use pin-source=file:/path");
	else if (p11_kit_uri_any_unrecognized(m->uri))
		r = err_set(err, ERR_INPUT, "the PKCS#11 URI has an attribute that is not in RFC 7512");
	else
		r = load(m, err);
	if (r < 0)
		module_done(m);
	return r;
}

void module_done(struct module *m)
{
	if (m->f) {
		module_drop(m);
		p11_kit_module_finalize(m->f);
		p11_kit_module_release(m->f);
	}
	p11_kit_uri_free(m->uri);
	secret_clear(&m->pin);
	*m = (struct module){0};
}

void module_drop(struct module *m)
{
	if (m->session)
		m->f->C_CloseSession(m->session); /* may well fail: the token can be gone */
	m->session = 0;
	m->logged_in = false;
}

int module_find_token(struct module *m, struct err *err)
{
	CK_SLOT_ID slots[64];
	CK_ULONG n = sizeof(slots) / sizeof(slots[0]);
	CK_TOKEN_INFO info;
	int r = ckr_err(m->f->C_GetSlotList(CK_TRUE, slots, &n), "C_GetSlotList", err);

	m->have_token = false;
	if (r < 0)
		return r;
	for (CK_ULONG i = 0; i < n; i++) {
		if (m->f->C_GetTokenInfo(slots[i], &info) != CKR_OK || !(info.flags & CKF_TOKEN_INITIALIZED) ||
		    !p11_kit_uri_match_token_info(m->uri, &info))
			continue;
		if (m->have_token)
			return err_set(err, ERR_INPUT, "more than one token fits the URI: add token=LABEL or serial=");
		m->slot = slots[i];
		m->token = info;
		m->have_token = true;
	}
	if (!m->have_token)
		return err_set(err, ERR_ABSENT, "no token fits the URI: is it plugged in, is its label right, may its module write its files (writable)? (%lu token%s there)", n,
			       n == 1 ? "" : "s");
	return 0;
}

static int read_pin(const char *source, struct secret *ret, struct err *err)
{
	static const char credential[] = "credential:";
	const char *dir;
	char path[LIMIT_FILE_PATH_LEN];
	CLEANUP(cleanup_close) int fd = -1;
	ssize_t n;
	int r;

	if (strncmp(source, credential, sizeof(credential) - 1) == 0) {
		dir = getenv("CREDENTIALS_DIRECTORY");
		if (!dir)
			return err_set(err, ERR_PIN, "pin-source is a systemd credential, but there is no $CREDENTIALS_DIRECTORY");
		snprintf(path, sizeof(path), "%s/%s", dir, source + sizeof(credential) - 1);
	} else {
		if (strncmp(source, "file:", 5) == 0)
			source += 5;
		snprintf(path, sizeof(path), "%s", source);
	}
	if (path[0] != '/')
		return err_set(err, ERR_PIN, "pin-source is file:/absolute/path or credential:NAME, not '%.100s'", source);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_set(err, ERR_PIN, "cannot read the PIN file %.200s: %s", path, strerror(errno));
	r = secret_new(ret, LIMIT_PIN_LEN + 2, err);
	if (r < 0)
		return r;
	n = read(fd, ret->data, LIMIT_PIN_LEN + 2);
	while (n > 0 && (ret->data[n - 1] == '\n' || ret->data[n - 1] == '\r'))
		n--;
	if (n <= 0 || n > (ssize_t)LIMIT_PIN_LEN) {
		secret_clear(ret);
		return err_set(err, ERR_PIN, "the PIN file %.200s holds no PIN", path);
	}
	ret->len = (size_t)n;
	return 0;
}

static int check_counters(const struct module *m, bool by_operator, struct err *err)
{
	if (m->token.flags & CKF_USER_PIN_LOCKED)
		return err_set(err, ERR_PIN, "the token's PIN is locked: unblock it with the token's own tool");
	if (m->token.flags & CKF_USER_PIN_FINAL_TRY)
		return err_set(err, ERR_PIN, "one PIN try is left: cotter does not use it up; log in once with the token's own tool");
	if ((m->token.flags & CKF_USER_PIN_COUNT_LOW) && !by_operator)
		return err_set(err, ERR_PIN, "a wrong PIN was given before: check yours, then run 'cotter unlock NAME --again', or log in once "
					     "with the token's own tool");
	return 0;
}

static int do_login(struct module *m, const struct secret *pin, struct err *err)
{
	CK_RV rv;
	int r;

	if (m->token.flags & CKF_PROTECTED_AUTHENTICATION_PATH)
		rv = m->f->C_Login(m->session, CKU_USER, NULL, 0);
	else
		rv = m->f->C_Login(m->session, CKU_USER, pin->data, pin->len);
	if (rv == CKR_OK || rv == CKR_USER_ALREADY_LOGGED_IN) {
		m->logged_in = true;
		m->pin_refused = false;
		m->failed_pin[0] = '\0';
		return 0;
	}
	r = ckr_err(rv, "login", err);
	if (ckr_pin_refused(rv)) {
		m->pin_refused = true;
		if (!pin || crypto_pwhash_str(m->failed_pin, (const char *)pin->data, pin->len, crypto_pwhash_OPSLIMIT_INTERACTIVE,
				      crypto_pwhash_MEMLIMIT_INTERACTIVE) != 0)
			m->failed_pin[0] = '\0';
		secret_clear(&m->pin);
	}
	return r;
}

static int open_session(struct module *m, struct err *err)
{
	CK_RV rv;
	int r = module_find_token(m, err);

	if (r < 0)
		return r;
	if (m->session)
		return 0;
	rv = m->f->C_OpenSession(m->slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &m->session);
	if (rv == CKR_TOKEN_WRITE_PROTECTED)
		rv = m->f->C_OpenSession(m->slot, CKF_SERIAL_SESSION, NULL, NULL, &m->session);
	return ckr_err(rv, "C_OpenSession", err);
}

int module_login(struct module *m, const struct secret *pin, bool by_operator, struct err *err)
{
	CLEANUP(secret_clear) struct secret from_source = {0};
	const char *source = p11_kit_uri_get_pin_source(m->uri);
	int r = open_session(m, err);

	if (r < 0)
		return r;
	if (!(m->token.flags & CKF_LOGIN_REQUIRED)) {
		m->logged_in = true;
		return 0;
	}
	if (!pin && m->pin_refused && !by_operator)
		return err_set(err, ERR_PIN, "the token refused the PIN before; it is not tried again: run 'cotter unlock'");
	if (!pin && m->pin.len)
		pin = &m->pin;
	r = check_counters(m, by_operator, err);
	if (r < 0)
		return r;
	if (!pin && !(m->token.flags & CKF_PROTECTED_AUTHENTICATION_PATH)) {
		if (!source)
			return err_set(err, ERR_PIN, "no PIN is configured: run 'cotter unlock'");
		r = read_pin(source, &from_source, err);
		if (r < 0)
			return r;
		pin = &from_source;
		if (m->failed_pin[0] &&
		    crypto_pwhash_str_verify(m->failed_pin, (const char *)pin->data, pin->len) == 0) {
			m->pin_refused = true;
			return err_set(err, ERR_PIN, "the configured PIN was refused before; it is not tried again: correct the "
						     "PIN file or run 'cotter unlock'");
		}
	}
	r = do_login(m, pin, err);
	if (r == 0 && pin && pin != &m->pin) {
		secret_clear(&m->pin);
		r = secret_copy(&m->pin, pin->data, pin->len, err);
	}
	return r;
}

int module_session(struct module *m, struct err *err)
{
	if (m->session && m->logged_in)
		return 0;
	return module_login(m, NULL, false, err);
}
