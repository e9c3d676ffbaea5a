#include "tools/manifest.h"

#include "common/bind.h"
#include "common/err.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

size_t manifest_line(const struct manifest_entry *e, char ret[MANIFEST_LINE_LEN])
{
	char hex[65];

	sodium_bin2hex(hex, sizeof(hex), e->sha256, sizeof(e->sha256));
	return (size_t)snprintf(ret, MANIFEST_LINE_LEN, "%s %llu %s\n", hex, (unsigned long long)e->version, e->path);
}

/* One line, without its end. Only what manifest_line would write is one. */
static int parse_line(const char *line, size_t len, struct manifest_entry *ret)
{
	char again[MANIFEST_LINE_LEN];
	const char *p = line + 65, *end = line + len;
	size_t n;

	if (len < 64 + 4 || line[64] != ' ' || sodium_hex2bin(ret->sha256, sizeof(ret->sha256), line, 64, NULL, &n, NULL) != 0 || n != sizeof(ret->sha256))
		return -1;
	for (ret->version = 0; p < end && *p >= '0' && *p <= '9' && ret->version <= LIMIT_VERSION_NUMBER; p++)
		ret->version = ret->version * 10 + (uint64_t)(*p - '0');
	if (p == end || *p++ != ' ' || ret->version == 0 || ret->version > LIMIT_VERSION_NUMBER || (size_t)(end - p) > LIMIT_PATH_LEN)
		return -1;
	snprintf(ret->path, sizeof(ret->path), "%.*s", (int)(end - p), p);
	n = manifest_line(ret, again);
	return path_valid(ret->path) && n == len + 1 && memcmp(again, line, len) == 0 ? 0 : -1;
}

int manifest_read(const char *text, size_t len, int (*each)(void *ctx, const struct manifest_entry *e), void *ctx, struct err *err)
{
	size_t first = strlen(MANIFEST_FIRST_LINE), n_lines = 0;
	const char *p = text, *end = text + len, *eol;
	char last[LIMIT_PATH_LEN + 1] = "";
	struct manifest_entry e;
	int r;

	if (len < first || memcmp(text, MANIFEST_FIRST_LINE, first) != 0)
		return err_set(err, ERR_INPUT, "the manifest does not begin with '%.*s'", (int)first - 1, MANIFEST_FIRST_LINE);
	for (p += first; p < end; p = eol + 1) {
		eol = memchr(p, '\n', (size_t)(end - p));
		if (++n_lines > LIMIT_MANIFEST_LINES)
			return err_set(err, ERR_LIMIT, "the manifest has more than %u lines", LIMIT_MANIFEST_LINES);
		if (!eol || parse_line(p, (size_t)(eol - p), &e) < 0)
			return err_set(err, ERR_INPUT, "line %zu of the manifest is not one of cotter's", n_lines + 1);
		if (strcmp(last, e.path) >= 0)
			return err_set(err, ERR_INPUT, "line %zu of the manifest: its path is not behind the one before", n_lines + 1);
		snprintf(last, sizeof(last), "%s", e.path);
		r = each(ctx, &e);
		if (r < 0)
			return r;
	}
	return 0;
}

int manifest_verify(const char *text, size_t len, const uint8_t *signature, size_t signature_len, const char *pem, size_t pem_len, struct err *err)
{
	BIO *bio = BIO_new_mem_buf(pem, (int)pem_len);
	EVP_PKEY *key = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int r;

	if (!key)
		r = err_set(err, ERR_INPUT, "the key to trust is no public key in PEM");
	else if (!ctx || EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key) <= 0)
		r = err_set(err, ERR_INPUT, "the key to trust is neither ECDSA nor RSA");
	else
		r = EVP_DigestVerify(ctx, signature, signature_len, (const unsigned char *)text, len) == 1
			    ? 0 : err_set(err, ERR_DENIED, "the manifest is not signed by the key that is to be trusted");
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key);
	BIO_free(bio);
	return r;
}
