#include "mask/fingerprint.h"

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS (1u << FINGERPRINT_SLOT_BITS)
#define LIST_MAX (1u << 20)
#define WORD_BITS 2.0 /* of a letter in a text that has letters of one case and separators alone */

unsigned int fingerprint_bits(const uint8_t *value, size_t len)
{
	size_t count[256] = {0};
	bool words = true;
	double bits = 0;

	for (size_t i = 0; i < len; i++) {
		uint8_t c = value[i];

		count[c]++;
		if (!((c >= 'a' && c <= 'z') || (c && strchr(" -_./:@\n", c))))
			words = false;
	}
	for (size_t i = 0; i < 256; i++)
		if (count[i])
			bits -= (double)count[i] * log2((double)count[i] / (double)len);
	if (words && bits > WORD_BITS * (double)len)
		bits = WORD_BITS * (double)len;
	return (unsigned int)bits;
}

static uint32_t slot_of(const uint8_t key[FINGERPRINT_KEY], const uint8_t *text)
{
	uint64_t k, v;

	memcpy(&k, key, sizeof(k));
	memcpy(&v, text, sizeof(v));
	return (uint32_t)((v * (k | 1)) >> (64 - FINGERPRINT_SLOT_BITS));
}

static void digest_of(const uint8_t key[FINGERPRINT_KEY], const uint8_t *text, size_t len, uint8_t ret[16])
{
	crypto_generichash(ret, 16, text, len, key, FINGERPRINT_KEY);
}

static int append(const uint8_t key[FINGERPRINT_KEY], const struct match *m, bool dense, struct secret *ret,
		  struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < m->n; i++) {
		const struct match_entry *e = &m->entries[i];
		const uint8_t *form = m->strings.data + e->offset;
		uint8_t bytes[FINGERPRINT_LEN], digest[16];
		struct writer w = writer_init(bytes, sizeof(bytes));

		if (e->len < FINGERPRINT_MIN || fingerprint_bits(form, e->len) < FINGERPRINT_BITS + FINGERPRINT_SLOT_BITS)
			continue;
		digest_of(key, form, e->len, digest);
		writer_u32be(&w, slot_of(key, form));
		writer_u16be(&w, e->len);
		writer_u8(&w, dense);
		writer_u8(&w, e->tail);
		writer_bytes(&w, digest, sizeof(digest));
		r = secret_append(ret, bytes, sizeof(bytes), err);
	}
	return r;
}

int fingerprint_make(const uint8_t key[FINGERPRINT_KEY], const uint8_t *value, size_t len, struct secret *ret,
		     struct err *err)
{
	struct forms f = {.min = FINGERPRINT_MIN};
	bool added;
	int r;

	/* the begin of a long one is enough to find it, and fits */
	if (len > FINGERPRINT_VALUE)
		len = FINGERPRINT_VALUE;
	if (fingerprint_bits(value, len) < FINGERPRINT_BITS)
		return 0;
	r = forms_add(&f, value, len, 0, &added, err);
	if (r == 0)
		r = append(key, &f.plain, false, ret, err);
	if (r == 0)
		r = append(key, &f.dense, true, ret, err);
	forms_done(&f);
	return r;
}

int fingerprints_add(struct fingerprints *f, const uint8_t *bytes, size_t len, uint32_t value, struct err *err)
{
	struct reader r = reader_init(bytes, len);

	if (len % FINGERPRINT_LEN || len / FINGERPRINT_LEN > LIST_MAX - f->n)
		return err_set(err, ERR_INPUT, "not a list of fingerprints, or too many");
	while (r.pos < len) {
		struct fingerprint *p;

		if (f->n == f->cap) {
			size_t cap = f->cap ? 2 * f->cap : 256;
			struct fingerprint *list = reallocarray(f->list, cap, sizeof(*list));

			if (!list)
				return err_set(err, ERR_FAILED, "out of memory");
			f->list = list;
			f->cap = cap;
		}
		p = &f->list[f->n++];
		*p = (struct fingerprint){.slot = reader_u32be(&r), .value = value};
		p->len = reader_u16be(&r);
		p->dense = reader_u8(&r) != 0;
		p->tail = reader_u8(&r);
		memcpy(p->digest, reader_bytes(&r, 16), 16);
		if (p->slot >= SLOTS || p->len < FINGERPRINT_MIN || p->len > MATCH_MAX || p->tail > 3)
			return err_set(err, ERR_INPUT, "a fingerprint is not well formed");
	}
	return 0;
}

static int by_slot(const void *a, const void *b)
{
	const struct fingerprint *x = a, *y = b;

	return (x->slot > y->slot) - (x->slot < y->slot);
}

int fingerprints_build(struct fingerprints *f, struct err *err)
{
	for (size_t i = 0; i < 2; i++) {
		free(f->slots[i]);
		f->slots[i] = calloc(SLOTS / 64, sizeof(uint64_t));
		if (!f->slots[i])
			return err_set(err, ERR_FAILED, "out of memory");
	}
	if (f->n)
		qsort(f->list, f->n, sizeof(*f->list), by_slot);
	for (size_t i = 0; i < f->n; i++)
		f->slots[f->list[i].dense][f->list[i].slot / 64] |= UINT64_C(1) << (f->list[i].slot % 64);
	return 0;
}

static void compare(const struct fingerprints *f, uint32_t slot, bool dense, const uint8_t *text, size_t len, size_t at,
		    fingerprint_found *found, void *context)
{
	size_t low = 0, high = f->n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (f->list[middle].slot < slot)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < f->n && f->list[low].slot == slot; low++) {
		const struct fingerprint *p = &f->list[low];
		uint8_t digest[16];

		if (p->dense != dense || p->len > len - at)
			continue;
		digest_of(f->key, text + at, p->len, digest);
		if (memcmp(digest, p->digest, sizeof(digest)) == 0)
			found(context, at, p);
	}
}

void fingerprints_scan(const struct fingerprints *f, bool dense, const uint8_t *text, size_t len, fingerprint_found *found,
		       void *context)
{
	const uint64_t *slots = f->slots[dense];

	for (size_t at = 0; at + 8 <= len; at++) {
		uint32_t slot = slot_of(f->key, text + at);

		if (__builtin_expect(slots[slot / 64] >> (slot % 64) & 1, 0))
			compare(f, slot, dense, text, len, at, found, context);
	}
}

void fingerprints_done(struct fingerprints *f)
{
	free(f->list);
	for (size_t i = 0; i < 2; i++)
		free(f->slots[i]);
	*f = (struct fingerprints){0};
}
