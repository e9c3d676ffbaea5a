#include "tpm/tss2_pem.h"

#include "common/b64.h"
#include "common/buf.h"
#include "common/der.h"
#include "common/err.h"
#include "common/pem.h"

#include <sodium.h>
#include <string.h>
#include <tss2/tss2_mu.h>

#define COLUMNS 64u
#define DER_MAX 1024u

static const char begin[] = "-----BEGIN TSS2 PRIVATE KEY-----\n";
static const char end[] = "-----END TSS2 PRIVATE KEY-----\n";
/* OBJECT IDENTIFIER 2.23.133.10.1.3, a loadable key */
static const uint8_t loadable_oid[] = {0x06, 0x06, 0x67, 0x81, 0x05, 0x0a, 0x01, 0x03};
/* [0] EXPLICIT BOOLEAN TRUE: the key has no auth value */
static const uint8_t empty_auth[] = {0xa0, 0x03, 0x01, 0x01, 0xff};

static int bad(struct err *err, const char *what)
{
	return err_set(err, ERR_INPUT, "not a TSS2 key file: %s", what);
}

/* The content of the next element, which must have this tag. Lengths: DER, at most two bytes. */
static struct reader element(struct reader *in, uint8_t tag)
{
	struct reader none = {.failed = true};
	size_t len;
	const uint8_t *p;

	if (reader_u8(in) != tag)
		in->failed = true;
	len = reader_u8(in);
	if (len == 0x81)
		len = reader_u8(in);
	else if (len == 0x82)
		len = reader_u16be(in);
	else if (len > 0x7f)
		in->failed = true;
	p = reader_bytes(in, len);
	return p ? reader_init(p, len) : none;
}

static uint64_t integer(struct reader *in)
{
	struct reader content = element(in, DER_INTEGER);
	uint64_t v = 0;

	if (content.len == 0 || content.len > 5)
		in->failed = true;
	for (size_t i = 0; i < content.len; i++)
		v = v << 8 | reader_u8(&content);
	return v;
}

static uint8_t next_tag(const struct reader *in)
{
	return in->failed || in->pos >= in->len ? 0 : in->p[in->pos];
}

/* [1] SEQUENCE OF SEQUENCE { [0] INTEGER command code, [1] OCTET STRING parameters }: one PolicyPCR is what we do. */
static bool read_policy(struct reader *in, struct tss2_key *key)
{
	struct reader tagged = element(in, DER_EXPLICIT(1)), list = element(&tagged, DER_SEQUENCE);
	struct reader policy = element(&list, DER_SEQUENCE), code = element(&policy, DER_EXPLICIT(0));
	struct reader wrapped = element(&policy, DER_EXPLICIT(1)), params = element(&wrapped, DER_OCTET_STRING);
	size_t offset = 0;

	if (integer(&code) != TPM2_CC_PolicyPCR || params.failed || !reader_done(&list) || !reader_done(&tagged) ||
	    !reader_done(&policy) || !reader_done(&code) || !reader_done(&wrapped))
		return false;
	key->has_pcr_policy = true;
	return Tss2_MU_TPM2B_DIGEST_Unmarshal(params.p, params.len, &offset, &key->pcr_digest) == TSS2_RC_SUCCESS &&
	       Tss2_MU_TPML_PCR_SELECTION_Unmarshal(params.p, params.len, &offset, &key->pcrs) == TSS2_RC_SUCCESS &&
	       offset == params.len;
}

static int read_der(const uint8_t *der, size_t len, struct tss2_key *ret, struct err *err)
{
	struct reader in = reader_init(der, len), key = element(&in, DER_SEQUENCE), content;
	const uint8_t *oid = reader_bytes(&key, sizeof(loadable_oid));
	size_t offset = 0;

	*ret = (struct tss2_key){0};
	if (!oid || memcmp(oid, loadable_oid, sizeof(loadable_oid)) != 0)
		return bad(err, "it is no loadable TPM key");
	if (next_tag(&key) == DER_EXPLICIT(0)) {
		content = element(&key, DER_EXPLICIT(0));
		if (content.failed || content.len != 3 || content.p[2] == 0)
			return bad(err, "keys with an authorisation value are not supported");
	}
	if (next_tag(&key) == DER_EXPLICIT(1) && !read_policy(&key, ret))
		return bad(err, "its policy is not a single PCR policy");
	ret->parent = (uint32_t)integer(&key);
	content = element(&key, DER_OCTET_STRING);
	if (content.failed ||
	    Tss2_MU_TPM2B_PUBLIC_Unmarshal(content.p, content.len, &offset, &ret->public) != TSS2_RC_SUCCESS ||
	    offset != content.len)
		return bad(err, "its public part is malformed");
	content = element(&key, DER_OCTET_STRING);
	offset = 0;
	if (content.failed ||
	    Tss2_MU_TPM2B_PRIVATE_Unmarshal(content.p, content.len, &offset, &ret->private) != TSS2_RC_SUCCESS ||
	    offset != content.len)
		return bad(err, "its private part is malformed");
	if (!reader_done(&key) || !reader_done(&in))
		return bad(err, "it has trailing bytes");
	if (ret->parent != TPM2_RH_OWNER)
		return bad(err, "its parent is not the owner's storage root key");
	return 0;
}

int tss2_pem_read(const char *text, size_t len, struct tss2_key *ret, struct err *err)
{
	uint8_t der[DER_MAX];
	const char *body = memmem(text, len, begin, sizeof(begin) - 1), *stop;
	size_t der_len;

	if (len > 2 * LIMIT_WIRE_DATA)
		return bad(err, "it is too long");
	if (!body)
		return bad(err, "there is no BEGIN TSS2 PRIVATE KEY line");
	body += sizeof(begin) - 1;
	stop = memmem(body, len - (size_t)(body - text), end, sizeof(end) - 2);
	if (!stop)
		return bad(err, "there is no END line");
	if (!b64_decode_padded(body, (size_t)(stop - body), "\r\n", der, sizeof(der), &der_len))
		return bad(err, "its base64 is malformed or too long");
	return read_der(der, der_len, ret, err);
}

static bool put_policy(struct writer *w, const struct tss2_key *key)
{
	uint8_t params[256], a[512], b[512], code[8];
	struct writer wa = writer_init(a, sizeof(a)), wb = writer_init(b, sizeof(b)), wc = writer_init(code, sizeof(code));
	size_t offset = 0;

	if (Tss2_MU_TPM2B_DIGEST_Marshal(&key->pcr_digest, params, sizeof(params), &offset) != TSS2_RC_SUCCESS ||
	    Tss2_MU_TPML_PCR_SELECTION_Marshal(&key->pcrs, params, sizeof(params), &offset) != TSS2_RC_SUCCESS)
		return false;
	der_put(&wc, DER_INTEGER, (const uint8_t[]){TPM2_CC_PolicyPCR >> 8, TPM2_CC_PolicyPCR & 0xff}, 2);
	der_put(&wa, DER_EXPLICIT(0), code, wc.len);
	der_put(&wb, DER_OCTET_STRING, params, offset);
	der_put(&wa, DER_EXPLICIT(1), b, wb.len);
	wb.len = 0;
	der_put(&wb, DER_SEQUENCE, a, wa.len);
	wa.len = 0;
	der_put(&wa, DER_SEQUENCE, b, wb.len);
	der_put(w, DER_EXPLICIT(1), a, wa.len);
	return !wa.failed && !wb.failed && !wc.failed;
}

int tss2_pem_write(const struct tss2_key *key, char ret[LIMIT_WIRE_DATA], struct err *err)
{
	uint8_t content[DER_MAX], der[DER_MAX], blob[512], parent[4];
	struct writer w = writer_init(content, sizeof(content)), out = writer_init(der, sizeof(der));
	struct writer text = writer_init(ret, LIMIT_WIRE_DATA);
	size_t offset = 0;
	bool ok = true;

	writer_bytes(&w, loadable_oid, sizeof(loadable_oid));
	writer_bytes(&w, empty_auth, sizeof(empty_auth));
	if (key->has_pcr_policy)
		ok = put_policy(&w, key);
	for (size_t i = 0; i < 4; i++)
		parent[i] = (uint8_t)(key->parent >> (24 - 8 * i));
	der_put(&w, DER_INTEGER, parent, sizeof(parent));
	ok = ok && Tss2_MU_TPM2B_PUBLIC_Marshal(&key->public, blob, sizeof(blob), &offset) == TSS2_RC_SUCCESS;
	der_put(&w, DER_OCTET_STRING, blob, offset);
	offset = 0;
	ok = ok && Tss2_MU_TPM2B_PRIVATE_Marshal(&key->private, blob, sizeof(blob), &offset) == TSS2_RC_SUCCESS;
	der_put(&w, DER_OCTET_STRING, blob, offset);
	der_put(&out, DER_SEQUENCE, content, w.len);
	pem_put(&text, "TSS2 PRIVATE KEY", der, out.len, "\n");
	writer_u8(&text, 0);
	if (!ok || w.failed || out.failed || text.failed)
		return err_set(err, ERR_FAILED, "the TPM key does not fit its file format");
	return 0;
}
