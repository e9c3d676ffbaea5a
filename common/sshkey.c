#include "common/sshkey.h"

#include <string.h>

const uint8_t *ssh_read_string(struct reader *r, size_t *ret_len)
{
	uint32_t n = reader_u32be(r);

	*ret_len = n;
	return reader_bytes(r, n);
}

void ssh_put_string(struct writer *w, const void *p, size_t n)
{
	writer_u32be(w, (uint32_t)n);
	writer_bytes(w, p, n);
}

void ssh_put_text(struct writer *w, const char *text)
{
	ssh_put_string(w, text, strlen(text));
}

void ssh_put_mpint(struct writer *w, const uint8_t *p, size_t n)
{
	while (n && *p == 0) {
		p++;
		n--;
	}
	writer_u32be(w, (uint32_t)(n + (n && *p & 0x80)));
	if (n && *p & 0x80)
		writer_u8(w, 0);
	writer_bytes(w, p, n);
}

bool ssh_is_text(const uint8_t *p, size_t n, const char *text)
{
	return p && n == strlen(text) && memcmp(p, text, n) == 0;
}

/* ---- public keys ------------------------------------------------------------------------------------------------ */

static const char *curve_of(enum key_type type)
{
	return type == KEY_P256 ? "nistp256" : "nistp384";
}

const char *ssh_key_name(enum key_type type)
{
	return type == KEY_ED25519 ? "ssh-ed25519" : key_is_rsa(type) ? "ssh-rsa" : type == KEY_P256 ? "ecdsa-sha2-nistp256" : "ecdsa-sha2-nistp384";
}

size_t ssh_key_blob(enum key_type type, const uint8_t *spki, size_t spki_len, uint8_t *ret, size_t cap)
{
	struct writer w = writer_init(ret, cap);
	uint8_t n[KEY_SIGNATURE_MAX], e[16], point[KEY_POINT_MAX];
	size_t n_len, e_len, len;

	ssh_put_text(&w, ssh_key_name(type));
	if (key_is_rsa(type)) {
		w.failed |= !spki_rsa(spki, spki_len, n, &n_len, e, &e_len);
		ssh_put_mpint(&w, e, e_len);
		ssh_put_mpint(&w, n, n_len);
	} else {
		len = spki_point(spki, spki_len, point);
		w.failed |= len == 0;
		if (type != KEY_ED25519)
			ssh_put_text(&w, curve_of(type));
		ssh_put_string(&w, point, len);
	}
	return w.failed ? 0 : w.len;
}

size_t ssh_signature_blob(enum key_type type, const char *algorithm, const uint8_t *signature, size_t len, uint8_t *ret, size_t cap)
{
	uint8_t inner[2 * 48 + 16];
	struct writer w = writer_init(ret, cap), parts = writer_init(inner, sizeof(inner));

	ssh_put_text(&w, algorithm);
	if (key_is_ec(type)) {
		ssh_put_mpint(&parts, signature, len / 2);
		ssh_put_mpint(&parts, signature + len / 2, len / 2);
		ssh_put_string(&w, inner, parts.len);
	} else {
		ssh_put_string(&w, signature, len);
	}
	return w.failed || parts.failed ? 0 : w.len;
}
