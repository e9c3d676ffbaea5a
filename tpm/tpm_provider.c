#include "tpm/tpm_provider.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "tpm/rc.h"
#include "tpm/tpm.h"
#include "tpm/tpm_key.h"
#include "tpm/tss2_pem.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>

/* TPM 2.0 part 2 §7.4; the library's own macros shift a signed int too far */
#define PERSISTENT_FIRST ((TPM2_HANDLE)TPM2_HT_PERSISTENT << TPM2_HR_SHIFT)
#define PERSISTENT_LAST (PERSISTENT_FIRST | TPM2_HR_HANDLE_MASK)

struct provider {
	struct tpm tpm;
	/* the key in the TPM now: one transient slot, beside the SRK's; the third stays free */
	char loaded_ref[LIMIT_URI_LEN];
	ESYS_TR loaded;
	bool is_persistent;
	struct tss2_key file; /* of the loaded key; has_pcr_policy is read at every use */
	TPM2B_PUBLIC public;
};

static int provider_open(const struct provider_config *config, struct provider **ret, struct err *err)
{
	const char *tcti = config->uri + strlen("tpm:");
	struct provider *p;

	if (!tcti[0])
		return err_set(err, ERR_INPUT, "the TPM's address is missing: tpm:device:/dev/tpmrm0, tpm:tabrmd or tpm:swtpm:port=2321");
	if (strlen(config->srk_name) >= sizeof(p->tpm.srk_name))
		return err_set(err, ERR_INPUT, "srk_name is too long");
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(err, ERR_FAILED, "out of memory");
	snprintf(p->tpm.tcti, sizeof(p->tpm.tcti), "%s", tcti);
	snprintf(p->tpm.srk_name, sizeof(p->tpm.srk_name), "%s", config->srk_name);
	p->loaded = p->tpm.srk = p->tpm.hmac_session = p->tpm.policy_session = p->tpm.open_policy_session = ESYS_TR_NONE;
	*ret = p;
	return 0;
}

static void unload(struct provider *p)
{
	if (p->loaded != ESYS_TR_NONE && !p->is_persistent)
		tpm_flush(&p->tpm, &p->loaded);
	else if (p->loaded != ESYS_TR_NONE && p->tpm.esys)
		Esys_TR_Close(p->tpm.esys, &p->loaded);
	p->loaded = ESYS_TR_NONE;
	p->loaded_ref[0] = '\0';
}

static void disconnect(struct provider *p)
{
	unload(p);
	tpm_disconnect(&p->tpm);
}

static void provider_close(struct provider *p)
{
	if (p) {
		disconnect(p);
		free(p);
	}
}

static const char *provider_failed_pin(const struct provider *p)
{
	(void)p;
	return "";
}

static int provider_login(struct provider *p, const struct secret *pin, bool by_operator, struct err *err)
{
	(void)by_operator;
	if (pin)
		return err_set(err, ERR_USAGE, "a TPM key has no PIN");
	return tpm_connect(&p->tpm, err);
}

static int read_file(const char *path, char *buf, size_t cap, size_t *ret_len, struct err *err)
{
	CLEANUP(cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return err_errno(err, errno, "TPM key file %.300s", path);
	n = read(fd, buf, cap);
	if (n < 0)
		return err_errno(err, errno, "TPM key file %.300s", path);
	if ((size_t)n == cap)
		return err_set(err, ERR_LIMIT, "TPM key file %.300s is too long", path);
	*ret_len = (size_t)n;
	return 0;
}

static TSS2_RC load_handle(struct provider *p, const char *text, struct err *err)
{
	TPM2B_PUBLIC *public = NULL;
	char *end;
	unsigned long handle = strtoul(text, &end, 16);
	TSS2_RC rc;

	if (*end || handle < PERSISTENT_FIRST || handle > PERSISTENT_LAST) {
		err_set(err, ERR_INPUT, "a persistent handle is written handle:0x81000010");
		return TSS2_RC_SUCCESS;
	}
	rc = Esys_TR_FromTPMPublic(p->tpm.esys, (TPM2_HANDLE)handle, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &p->loaded);
	if (rc == TSS2_RC_SUCCESS)
		rc = Esys_ReadPublic(p->tpm.esys, p->loaded, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &public, NULL, NULL);
	if (rc == TSS2_RC_SUCCESS) {
		p->public = *public;
		p->is_persistent = true;
		p->file = (struct tss2_key){0};
	}
	Esys_Free(public);
	return rc;
}

static TSS2_RC load_file(struct provider *p, const char *path, struct err *err)
{
	char text[LIMIT_WIRE_DATA * 2];
	ESYS_TR session = ESYS_TR_NONE;
	size_t len = 0;
	TSS2_RC rc;

	if (read_file(path, text, sizeof(text), &len, err) < 0 || tss2_pem_read(text, len, &p->file, err) < 0)
		return TSS2_RC_SUCCESS;
	if (tpm_session(&p->tpm, NULL, TPM_SECRET, &session, err) < 0)
		return TSS2_RC_SUCCESS;
	rc = Esys_Load(p->tpm.esys, p->tpm.srk, session, ESYS_TR_NONE, ESYS_TR_NONE, &p->file.private, &p->file.public,
		       &p->loaded);
	p->public = p->file.public;
	p->is_persistent = false;
	return rc;
}

/* rc tells what the TPM said; with rc 0 and nothing loaded, err has the reason. */
static TSS2_RC load(struct provider *p, const char *ref, struct err *err)
{
	static const char handle[] = "handle:";
	TSS2_RC rc;

	if (p->loaded != ESYS_TR_NONE && strcmp(p->loaded_ref, ref) == 0)
		return TSS2_RC_SUCCESS;
	unload(p);
	rc = strncmp(ref, handle, sizeof(handle) - 1) == 0 ? load_handle(p, ref + sizeof(handle) - 1, err)
							   : load_file(p, ref, err);
	if (rc == TSS2_RC_SUCCESS && p->loaded != ESYS_TR_NONE)
		snprintf(p->loaded_ref, sizeof(p->loaded_ref), "%s", ref);
	else
		p->loaded = ESYS_TR_NONE;
	return rc;
}

/* What is done with a loaded key. */
struct key_operation {
	TSS2_RC (*run)(struct provider *p, ESYS_TR session, void *args); /* NULL: nothing, it is only loaded */
	enum tpm_secrecy secrecy;
	const char *what;
};

static TSS2_RC run(struct provider *p, const char *ref, const struct key_operation *op, void *args, struct err *err)
{
	ESYS_TR session = ESYS_TR_NONE;
	TSS2_RC rc = load(p, ref, err);

	if (rc != TSS2_RC_SUCCESS || p->loaded == ESYS_TR_NONE || !op->run)
		return rc;
	if (tpm_session(&p->tpm, p->file.has_pcr_policy ? &p->file.pcrs : NULL, op->secrecy, &session, err) < 0)
		return TSS2_RC_SUCCESS;
	return op->run(p, session, args);
}

/* Runs op with the key loaded; once more over a new connection when the TPM restarted or its objects are gone. */
static int with_key(struct provider *p, const char *ref, const struct key_operation *op, void *args, struct err *err)
{
	struct err inner;
	TSS2_RC rc = TSS2_RC_SUCCESS;
	int r;

	for (int attempt = 0; attempt < 2; attempt++) {
		inner = (struct err){0};
		r = tpm_connect(&p->tpm, err);
		if (r < 0)
			return r;
		rc = run(p, ref, op, args, &inner);
		if (rc == TSS2_RC_SUCCESS && inner.code == 0)
			return 0;
		if (rc != TSS2_RC_SUCCESS ? !rc_connection_lost(rc) : inner.code != ERR_HARDWARE && inner.code != ERR_ABSENT)
			break;
		disconnect(p);
	}
	if (rc == TSS2_RC_SUCCESS) {
		*err = inner;
		return -inner.code;
	}
	return rc_err(rc, op->what, err);
}

static int provider_find(struct provider *p, const char *ref, struct provider_key *ret, struct err *err)
{
	static const struct key_operation look = {NULL, TPM_PUBLIC, "loading the TPM key"};
	int r = with_key(p, ref, &look, NULL, err);

	return r < 0 ? r : tpm_key_describe(&p->public.publicArea, ref, ret, err);
}

/* Persistent keys; key files are known to the configuration, not to the TPM. */
static int provider_list(struct provider *p, size_t index, struct provider_key *ret, struct err *err)
{
	TPMS_CAPABILITY_DATA *data = NULL;
	char ref[32];
	size_t seen = 0;
	int r = tpm_connect(&p->tpm, err);

	if (r < 0)
		return r;
	r = rc_err(Esys_GetCapability(p->tpm.esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, TPM2_CAP_HANDLES,
				      PERSISTENT_FIRST, LIMIT_KEYS, NULL, &data),
		   "listing persistent keys", err);
	for (UINT32 i = 0; r == 0 && i < data->data.handles.count; i++) {
		snprintf(ref, sizeof(ref), "handle:0x%08x", data->data.handles.handle[i]);
		if (provider_find(p, ref, ret, err) == 0 && seen++ == index) {
			Esys_Free(data);
			return 0;
		}
	}
	Esys_Free(data);
	return r < 0 ? r : err_set(err, ERR_NOT_FOUND, "no more keys");
}

struct agree_args {
	const uint8_t *peer;
	uint8_t *ret;
};

static TSS2_RC agree_op(struct provider *p, ESYS_TR session, void *args)
{
	struct agree_args *a = args;
	TPM2B_ECC_POINT in = {.point = {.x.size = 32, .y.size = 32}}, *out = NULL;
	TSS2_RC rc;

	memcpy(in.point.x.buffer, a->peer + 1, 32); /* always full length: some TPMs refuse shorter ones */
	memcpy(in.point.y.buffer, a->peer + 33, 32);
	rc = Esys_ECDH_ZGen(p->tpm.esys, p->loaded, session, ESYS_TR_NONE, ESYS_TR_NONE, &in, &out);
	if (rc != TSS2_RC_SUCCESS)
		return rc;
	memset(a->ret, 0, P256_SECRET_LEN);
	if (out->point.x.size <= P256_SECRET_LEN)
		memcpy(a->ret + P256_SECRET_LEN - out->point.x.size, out->point.x.buffer, out->point.x.size);
	sodium_memzero(out, sizeof(*out));
	Esys_Free(out);
	return rc;
}

static int provider_agree(struct provider *p, const char *ref, const uint8_t peer[P256_POINT_LEN],
			  uint8_t ret[P256_SECRET_LEN], struct err *err)
{
	static const struct key_operation agree = {agree_op, TPM_SECRET, "ECDH (TPM2_ECDH_ZGen)"};
	struct agree_args args = {peer, ret};

	return with_key(p, ref, &agree, &args, err);
}

struct sign_args {
	const struct provider_sign *q;
	uint8_t *ret;
	size_t *ret_len;
	struct err *err;
};

static const TPMI_ALG_HASH hash_names[HASH_TYPES] = {
	[HASH_NONE] = TPM2_ALG_NULL,	 [HASH_SHA1] = TPM2_ALG_SHA1,	  [HASH_SHA256] = TPM2_ALG_SHA256,
	[HASH_SHA384] = TPM2_ALG_SHA384, [HASH_SHA512] = TPM2_ALG_SHA512,
};

static size_t take_signature(const TPMT_SIGNATURE *s, size_t want, uint8_t ret[KEY_SIGNATURE_MAX])
{
	const TPM2B_ECC_PARAMETER *x = &s->signature.ecdsa.signatureR, *y = &s->signature.ecdsa.signatureS;
	const TPM2B_PUBLIC_KEY_RSA *rsa = s->sigAlg == TPM2_ALG_RSAPSS ? &s->signature.rsapss.sig : &s->signature.rsassa.sig;
	size_t half = want / 2;

	memset(ret, 0, want);
	if (s->sigAlg != TPM2_ALG_ECDSA) {
		if (rsa->size > want)
			return 0;
		memcpy(ret + want - rsa->size, rsa->buffer, rsa->size);
		return want;
	}
	if (x->size > half || y->size > half)
		return 0;
	memcpy(ret + half - x->size, x->buffer, x->size);
	memcpy(ret + want - y->size, y->buffer, y->size);
	return want;
}

static TSS2_RC sign_op(struct provider *p, ESYS_TR session, void *args)
{
	struct sign_args *a = args;
	const TPMT_TK_HASHCHECK ticket = {.tag = TPM2_ST_HASHCHECK, .hierarchy = TPM2_RH_NULL};
	const uint8_t *data = a->q->data;
	size_t len = a->q->len, want = key_row(tpm_key_type(&p->public.publicArea))->signature_len;
	/* a TPM wants the digest and the hash's name, and writes the DigestInfo itself */
	enum hash_type hash = a->q->scheme == SIGN_RSA_PKCS1 ? digest_info_split(&data, &len) : hash_type_of_length(len);
	TPMT_SIG_SCHEME scheme = {.scheme = a->q->scheme == SIGN_ECDSA ? TPM2_ALG_ECDSA : a->q->scheme == SIGN_RSA_PSS ? TPM2_ALG_RSAPSS : TPM2_ALG_RSASSA,
				  .details.any.hashAlg = hash_names[hash]};
	TPM2B_DIGEST digest = {.size = (UINT16)len};
	TPMT_SIGNATURE *out = NULL;
	TSS2_RC rc;

	if (hash == HASH_NONE || hash_names[hash] == 0 || want == 0) {
		err_set(a->err, ERR_INPUT, "a TPM signs digests of SHA-1, SHA-256, SHA-384 or SHA-512 alone");
		return TSS2_RC_SUCCESS;
	}
	memcpy(digest.buffer, data, len);
	rc = Esys_Sign(p->tpm.esys, p->loaded, session, ESYS_TR_NONE, ESYS_TR_NONE, &digest, &scheme, &ticket, &out);
	if (rc != TSS2_RC_SUCCESS)
		return rc;
	*a->ret_len = take_signature(out, want, a->ret);
	Esys_Free(out);
	return rc;
}

static TSS2_RC decrypt_op(struct provider *p, ESYS_TR session, void *args)
{
	struct sign_args *a = args;
	TPM2B_PUBLIC_KEY_RSA in = {.size = (UINT16)a->q->len}, *out = NULL;
	const TPMT_RSA_DECRYPT scheme = {.scheme = TPM2_ALG_OAEP, .details.oaep.hashAlg = hash_names[a->q->hash]};
	const TPM2B_DATA label = {0};
	TSS2_RC rc;

	memcpy(in.buffer, a->q->data, a->q->len);
	rc = Esys_RSA_Decrypt(p->tpm.esys, p->loaded, session, ESYS_TR_NONE, ESYS_TR_NONE, &in, &scheme, &label, &out);
	/* what libtpms calls a padding that is wrong; a TPM in failure mode would not have loaded the key */
	if (rc == TPM2_RC_FAILURE)
		return TPM2_RC_VALUE;
	if (rc != TSS2_RC_SUCCESS)
		return rc;
	if (out->size <= KEY_SIGNATURE_MAX) {
		memcpy(a->ret, out->buffer, out->size);
		*a->ret_len = out->size;
	}
	sodium_memzero(out, sizeof(*out));
	Esys_Free(out);
	return rc;
}

static int provider_sign(struct provider *p, const char *ref, const struct provider_sign *q, uint8_t ret[KEY_SIGNATURE_MAX], size_t *ret_len,
			 struct err *err)
{
	static const struct key_operation decrypt = {decrypt_op, TPM_SECRET, "decrypting (TPM2_RSA_Decrypt)"}, sign = {sign_op, TPM_PUBLIC, "signing (TPM2_Sign)"};
	struct err why = {0};
	struct sign_args args = {q, ret, ret_len, &why};
	int r;

	*ret_len = 0;
	if (q->scheme == SIGN_ED25519)
		return err_set(err, ERR_INPUT, "a TPM has no Ed25519");
	if (q->scheme == DECRYPT_OAEP && hash_names[q->hash] == 0)
		return err_set(err, ERR_INPUT, "a TPM has no OAEP with that hash");
	if (q->scheme == DECRYPT_OAEP)
		return with_key(p, ref, &decrypt, &args, err);
	r = with_key(p, ref, &sign, &args, err);
	if (r == 0 && why.code)
		*err = why;
	return r == 0 && why.code ? -why.code : r;
}

static int create(struct provider *p, const TPM2B_PUBLIC *template, struct tss2_key *key, struct err *err)
{
	const TPM2B_SENSITIVE_CREATE sensitive = {0};
	const TPM2B_DATA outside = {0};
	const TPML_PCR_SELECTION no_pcrs = {0};
	TPM2B_PUBLIC *public = NULL;
	TPM2B_PRIVATE *private = NULL;
	ESYS_TR session = ESYS_TR_NONE;
	int r = tpm_session(&p->tpm, NULL, TPM_SECRET, &session, err);

	if (r == 0)
		r = rc_err(Esys_Create(p->tpm.esys, p->tpm.srk, session, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive, template,
				       &outside, &no_pcrs, &private, &public, NULL, NULL, NULL),
			   "making a TPM key", err);
	if (r == 0) {
		key->public = *public;
		key->private = *private;
	}
	Esys_Free(public);
	Esys_Free(private);
	return r;
}

static int provider_make(struct provider *p, enum provider_key_use use, enum key_type type, const char *label, const char *pcrs,
			 struct provider_key *ret, char ret_pem[LIMIT_WIRE_DATA], struct err *err)
{
	struct tss2_key key = {.parent = TPM2_RH_OWNER};
	TPM2B_PUBLIC template;
	int r = tpm_connect(&p->tpm, err);

	if (r < 0)
		return r;
	if (type == KEY_ED25519)
		return err_set(err, ERR_INPUT, "a TPM has no Ed25519");
	tpm_key_template(use, type, &template);
	if (pcrs[0]) {
		key.has_pcr_policy = true;
		r = tpm_parse_pcrs(pcrs, &key.pcrs, err);
		if (r == 0)
			r = tpm_pcr_policy(&p->tpm, &key.pcrs, &key.pcr_digest, &template.publicArea.authPolicy, err);
	} else {
		template.publicArea.objectAttributes |= TPMA_OBJECT_USERWITHAUTH;
	}
	if (r == 0)
		r = create(p, &template, &key, err);
	if (r == 0)
		r = tss2_pem_write(&key, ret_pem, err);
	if (r < 0) {
		disconnect(p); /* the next call starts clean */
		return r;
	}
	p->public = key.public;
	r = tpm_key_describe(&p->public.publicArea, "", ret, err);
	if (r < 0)
		return r;
	unload(p);
	snprintf(ret->label, sizeof(ret->label), "%s", label);
	return 0;
}

static int provider_random(struct provider *p, uint8_t *ret, size_t len, struct err *err)
{
	TPM2B_DIGEST *bytes = NULL;
	ESYS_TR session = ESYS_TR_NONE;
	int r = tpm_connect(&p->tpm, err);

	while (r == 0 && len) {
		r = tpm_session(&p->tpm, NULL, TPM_SECRET, &session, err);
		if (r == 0)
			r = rc_err(Esys_GetRandom(p->tpm.esys, session, ESYS_TR_NONE, ESYS_TR_NONE, len < 32 ? (UINT16)len : 32, &bytes),
				   "random numbers", err);
		if (r < 0)
			break;
		if (!bytes || bytes->size == 0 || bytes->size > len) {
			r = err_set(err, ERR_HARDWARE, "the TPM gave a wrong number of random bytes");
		} else {
			memcpy(ret, bytes->buffer, bytes->size);
			ret += bytes->size;
			len -= bytes->size;
		}
		Esys_Free(bytes);
		bytes = NULL;
	}
	if (r < 0)
		disconnect(p);
	return r;
}

static uint32_t property(struct provider *p, TPM2_PT which)
{
	TPMS_CAPABILITY_DATA *data = NULL;
	uint32_t value = 0;

	if (Esys_GetCapability(p->tpm.esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, TPM2_CAP_TPM_PROPERTIES, which, 1, NULL,
			       &data) == TSS2_RC_SUCCESS &&
	    data->data.tpmProperties.count)
		value = data->data.tpmProperties.tpmProperty[0].value;
	Esys_Free(data);
	return value;
}

static void provider_status(struct provider *p, struct provider_status *ret)
{
	struct err err = {0};
	uint8_t probe;
	char maker[5];
	uint32_t id, version;

	*ret = (struct provider_status){0};
	/* a random byte shows that the connection is alive; the second try is over a new one */
	if (provider_random(p, &probe, 1, &err) < 0 && provider_random(p, &probe, 1, &err) < 0) {
		ret->state = err.code == ERR_PIN ? PROVIDER_PIN_NEEDED : PROVIDER_ABSENT;
		snprintf(ret->problem, sizeof(ret->problem), "%.255s", err.msg);
		return;
	}
	id = property(p, TPM2_PT_MANUFACTURER);
	/* four characters, padded with anything */
	for (unsigned int i = 0; i < 4; i++)
		maker[i] = (char)(id >> (24 - 8 * i) & 0x7f);
	maker[4] = '\0';
	for (unsigned int i = 0; i < 4; i++)
		if (maker[i] <= 0x20 || maker[i] == 0x7f)
			maker[i] = '\0';
	version = property(p, TPM2_PT_FIRMWARE_VERSION_1);
	snprintf(ret->description, sizeof(ret->description), "TPM 2.0 at %.100s (maker %s, firmware %u.%u)", p->tpm.tcti,
		 maker, version >> 16, version & 0xffff);
	snprintf(ret->srk_name, sizeof(ret->srk_name), "%s", p->tpm.found_srk_name);
}

const struct provider_ops tpm_provider_ops = {
	.scheme = "tpm:",
	.open = provider_open,
	.login = provider_login,
	.failed_pin = provider_failed_pin,
	.list = provider_list,
	.make = provider_make,
	.find = provider_find,
	.agree = provider_agree,
	.sign = provider_sign,
	.random = provider_random,
	.status = provider_status,
	.close = provider_close,
};
