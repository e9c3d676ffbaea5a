#include "broker/sshcert.h"

#include "broker/glob.h"
#include "common/b64.h"
#include "common/err.h"
#include "common/sshkey.h"

#include <sodium.h>
#include <string.h>

/* Kinds of keys, and how a certificate of one is called; what stands in the key is carried over as it is. */
static const struct {
	const char *key, *certificate;
	int n_strings; /* behind the name; mpints are written as strings */
} kinds[] = {
	{"ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com", 1},
	{"ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256-cert-v01@openssh.com", 2},
	{"ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384-cert-v01@openssh.com", 2},
	{"ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521-cert-v01@openssh.com", 2},
	{"ssh-rsa", "ssh-rsa-cert-v01@openssh.com", 2},
	{"sk-ssh-ed25519@openssh.com", "sk-ssh-ed25519-cert-v01@openssh.com", 2},
	{"sk-ecdsa-sha2-nistp256@openssh.com", "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", 3},
};

/* "type base64 comment": the blob; its kind, or -1. */
static int read_line(const char *line, uint8_t *blob, size_t cap, size_t *ret_len, size_t *ret_offset)
{
	size_t n = strcspn(line, " "), len, name_len;
	const char *data = line + n + (line[n] == ' ');
	struct reader r;
	const uint8_t *name;

	len = strcspn(data, " \r\n");
	if (!b64_decode_padded(data, len, NULL, blob, cap, ret_len))
		return -1;
	r = reader_init(blob, *ret_len);
	name = ssh_read_string(&r, &name_len);
	for (size_t i = 0; name && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strlen(kinds[i].key) != n || memcmp(kinds[i].key, line, n) != 0 || !ssh_is_text(name, name_len, kinds[i].key))
			continue;
		*ret_offset = r.pos;
		for (int k = 0; k < kinds[i].n_strings; k++)
			ssh_read_string(&r, &len);
		/* RSA's modulus is the last; 2048 bits of it at least */
		return reader_done(&r) && (strcmp(kinds[i].key, "ssh-rsa") != 0 || len >= 256) ? (int)i : -1;
	}
	return -1;
}

static bool allowed(char *const *globs, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (glob_match(globs[i], name))
			return true;
	return false;
}

/* What a log shows as it is, and what nobody takes for a pattern. */
static bool is_principal(const char *name)
{
	for (; *name; name++)
		if (*name <= 0x20 || *name > 0x7e || strchr("*?,\"'\\", *name))
			return false;
	return true;
}

/* Each of them as a string, all as one. An empty list would be good for everybody. */
static int put_principals(struct writer *w, const struct sshcert_request *q, struct err *err)
{
	uint8_t packed[4096];
	struct writer all = writer_init(packed, sizeof(packed));
	char name[LIMIT_CERT_NAME + 1];
	const char *p = q->principals;
	size_t n, count = 0;

	for (;; p += n + 1) {
		n = strcspn(p, ",");
		if (n == 0 || n > LIMIT_CERT_NAME || ++count > LIMIT_CERT_NAMES)
			return err_set(err, ERR_INPUT, "valid_principals: one to %u names, joined by commas", LIMIT_CERT_NAMES);
		memcpy(name, p, n);
		name[n] = '\0';
		if (!is_principal(name))
			return err_set(err, ERR_INPUT, "a principal is a name without spaces or wildcards");
		if (!allowed(q->role->names, q->role->n_names, name))
			return err_set(err, ERR_INPUT, "the role does not allow one of the principals");
		ssh_put_text(&all, name);
		if (!p[n])
			break;
	}
	w->failed |= all.failed;
	ssh_put_string(w, packed, all.len);
	return 0;
}

static void put_option(struct writer *w, const char *name, const char *value)
{
	uint8_t inner[260];
	struct writer i = writer_init(inner, sizeof(inner));

	ssh_put_text(w, name);
	if (*value)
		ssh_put_text(&i, value);
	w->failed |= i.failed;
	ssh_put_string(w, inner, i.len);
}

static void put_critical(struct writer *w, const struct config_cert_role *r)
{
	uint8_t packed[600];
	struct writer all = writer_init(packed, sizeof(packed));

	/* in the order of their names, as the format wants it */
	if (r->force_command[0])
		put_option(&all, "force-command", r->force_command);
	if (r->source_address[0])
		put_option(&all, "source-address", r->source_address);
	w->failed |= all.failed;
	ssh_put_string(w, packed, all.len);
}

static int put_extensions(struct writer *w, const struct sshcert_request *q, struct err *err)
{
	uint8_t packed[2048];
	struct writer all = writer_init(packed, sizeof(packed));
	const char *last = "", *next;

	for (size_t i = 0; i < q->n_extensions; i++) {
		bool known = false;

		for (size_t k = 0; k < q->role->n_extensions; k++)
			known |= strcmp(q->role->extensions[k], q->extensions[i]) == 0;
		if (!known)
			return err_set(err, ERR_INPUT, "the role does not allow one of the extensions");
	}
	/* sorted, each once */
	for (;; last = next) {
		next = NULL;
		for (size_t i = 0; i < q->n_extensions; i++)
			if (strcmp(q->extensions[i], last) > 0 && (!next || strcmp(q->extensions[i], next) < 0))
				next = q->extensions[i];
		if (!next)
			break;
		put_option(&all, next, "");
	}
	w->failed |= all.failed;
	ssh_put_string(w, packed, all.len);
	return 0;
}

int sshcert_build(const struct sshcert_request *q, const uint8_t *ca_blob, size_t ca_len, uint8_t *ret, size_t *ret_len, char ret_type[64], struct err *err)
{
	uint8_t blob[LIMIT_SSH_KEY], nonce[32];
	struct writer w = writer_init(ret, LIMIT_CERTIFICATE);
	size_t len = 0, offset = 0;
	int kind = strlen(q->public_key) <= LIMIT_SSH_KEY ? read_line(q->public_key, blob, sizeof(blob), &len, &offset) : -1, r;

	if (kind < 0)
		return err_set(err, ERR_INPUT, "public_key: a line such as 'ssh-ed25519 AAAA...'; RSA from 2048 bits on");
	randombytes_buf(nonce, sizeof(nonce));
	ssh_put_text(&w, kinds[kind].certificate);
	ssh_put_string(&w, nonce, sizeof(nonce));
	writer_bytes(&w, blob + offset, len - offset);
	writer_u64be(&w, q->serial);
	writer_u32be(&w, q->role->host ? 2 : 1);
	ssh_put_text(&w, q->key_id);
	r = put_principals(&w, q, err);
	if (r < 0)
		return r;
	writer_u64be(&w, q->valid_after_s);
	writer_u64be(&w, q->valid_before_s);
	put_critical(&w, q->role);
	r = put_extensions(&w, q, err);
	if (r < 0)
		return r;
	ssh_put_string(&w, "", 0);
	ssh_put_string(&w, ca_blob, ca_len);
	*ret_len = w.len;
	snprintf(ret_type, 64, "%s", kinds[kind].certificate);
	return w.failed ? err_set(err, ERR_LIMIT, "the certificate has more than %u bytes", LIMIT_CERTIFICATE) : 0;
}
