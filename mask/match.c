#include "mask/match.h"

#include "common/err.h"

#include <assert.h>
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define NONE UINT32_MAX
#define SHORT 8u /* strings below it are looked for at each position */
#define LONG 16u
#define LONGER 32u
#define SET_SPARE 16u /* bits a hash: one of some fifty others passes */
#define SET_BITS_MIN 16u
#define SET_BITS_MAX 24u
#define PAIRS 65536u
#define BUCKETS 8u

/* The kinds of sampling: q bytes at each multiple of stride, for strings of at least stride + q - 1 bytes. The wider the
 * stride, the more grams a string has, and the fewer are looked up. */
static const struct sampling {
	size_t q, stride, min, max;
} samplings[MATCH_SAMPLINGS] = {
	{4, SHORT - 4 + 1, SHORT, LONG - 1}, {8, LONG - 8 + 1, LONG, LONGER - 1}, {8, LONGER - 8 + 1, LONGER, MATCH_MAX}};

/* A set of hashes that lets few others through, and is small enough for the processor's cache: each hash is two bits of one
 * word. */
struct match_set {
	unsigned int bits; /* their number, as a power of two */
	uint64_t *words;
};

/* Behind the set a table that says where in a string a gram may stand. */
struct match_grams {
	struct match_set set;
	size_t mask; /* of the table's index */
	struct gram {
		uint32_t tag;
		uint32_t offsets; /* bit i: at offset i; 0: a free place */
	} * table;
};

/* Which two first bytes short strings have: a bit for each pair, and, for 32 positions at once, a bit for each of eight
 * groups of pairs by the halves of their bytes. */
struct match_pairs {
	uint8_t low[2][16], high[2][16];
	uint64_t set[PAIRS / 64];
	uint64_t whole[PAIRS / 64]; /* the same, of strings that have less than four bytes */
	uint64_t fours[PAIRS / 64]; /* and by hash the first four bytes of the others */
};

static uint64_t load(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	memcpy(&v, p, n);
	return v;
}

static uint64_t mix(uint64_t v)
{
	return v * 0x9e3779b97f4a7c15u;
}

static size_t hash(uint64_t v, unsigned int bits)
{
	return (size_t)(mix(v) >> (64 - bits));
}

static bool bit(const uint64_t *set, size_t i)
{
	return set[i / 64] >> (i % 64) & 1;
}

static void bit_set(uint64_t *set, size_t i)
{
	set[i / 64] |= UINT64_C(1) << (i % 64);
}

int match_add(struct match *m, const void *string, size_t len, uint32_t value, uint8_t tail, struct err *err)
{
	int r;

	assert(len >= 1 && len <= MATCH_MAX);
	if (m->n == m->cap) {
		size_t cap = m->cap ? 2 * m->cap : 64;
		struct match_entry *entries = reallocarray(m->entries, cap, sizeof(*entries));

		if (!entries)
			return err_set(err, ERR_FAILED, "out of memory");
		m->entries = entries;
		m->cap = cap;
	}
	m->entries[m->n] = (struct match_entry){
		.offset = (uint32_t)m->strings.len, .parent = NONE, .value = value, .len = (uint16_t)len, .tail = tail};
	r = secret_append(&m->strings, string, len, err);
	if (r < 0)
		return r;
	m->n++;
	m->built = false;
	return 0;
}

static const uint8_t *string_of(const struct match *m, const struct match_entry *e)
{
	return m->strings.data + e->offset;
}

static int compare(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
	int c = memcmp(a, b, a_len < b_len ? a_len : b_len);

	return c ? c : (a_len > b_len) - (a_len < b_len);
}

static int compare_entries(const void *a, const void *b, void *context)
{
	const struct match_entry *x = a, *y = b;
	int c = compare(string_of(context, x), x->len, string_of(context, y), y->len);

	/* of equal ones the first that was added stays */
	return c ? c : (x->offset > y->offset) - (x->offset < y->offset);
}

static bool begins_with(const struct match *m, const struct match_entry *e, const struct match_entry *beginning)
{
	return e->len >= beginning->len && memcmp(string_of(m, e), string_of(m, beginning), beginning->len) == 0;
}

static void sort(struct match *m)
{
	size_t out = 0;

	if (m->n)
		qsort_r(m->entries, m->n, sizeof(*m->entries), compare_entries, m);
	for (size_t i = 0; i < m->n; i++) {
		struct match_entry *e = &m->entries[i];

		if (out && m->entries[out - 1].len == e->len && begins_with(m, e, &m->entries[out - 1])) {
			/* the more generous end serves both */
			if (e->tail > m->entries[out - 1].tail)
				m->entries[out - 1].tail = e->tail;
			continue;
		}
		m->entries[out++] = *e;
	}
	m->n = out;
	for (size_t i = 0; i < m->n; i++) {
		uint32_t parent = i ? (uint32_t)(i - 1) : NONE;

		while (parent != NONE && !begins_with(m, &m->entries[i], &m->entries[parent]))
			parent = m->entries[parent].parent;
		m->entries[i].parent = parent;
	}
}

/* Zeros. All its pages at once: one by one, as they are written to, takes longer than to fill them. NULL: out of memory. */
static void *table_new(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void table_free(void *p, size_t size)
{
	if (!p)
		return;
	explicit_bzero(p, size);
	munmap(p, size);
}

static bool set_init(struct match_set *set, size_t n)
{
	for (set->bits = SET_BITS_MIN; set->bits < SET_BITS_MAX && ((size_t)1 << set->bits) < SET_SPARE * n;)
		set->bits++;
	set->words = table_new(((size_t)1 << set->bits) / 8);
	return set->words != NULL;
}

static void set_free(struct match_set *set)
{
	table_free(set->words, ((size_t)1 << set->bits) / 8);
	*set = (struct match_set){0};
}

static inline size_t set_word(uint64_t mixed, unsigned int bits)
{
	return (size_t)(mixed >> (64 - bits + 6));
}

static inline uint64_t set_two(uint64_t mixed)
{
	return UINT64_C(1) << (mixed >> 26 & 63) | UINT64_C(1) << (mixed >> 32 & 63);
}

static void set_add(struct match_set *set, uint64_t mixed)
{
	set->words[set_word(mixed, set->bits)] |= set_two(mixed);
}

static inline bool set_has(const uint64_t *words, unsigned int bits, uint64_t mixed)
{
	uint64_t two = set_two(mixed);

	return (words[set_word(mixed, bits)] & two) == two;
}

/* The upper bits of the mixed gram are its place in the set, those in the middle its place in the table and its name there.
 */
static struct gram *gram_place(const struct match_grams *g, uint64_t mixed)
{
	size_t i = (size_t)(mixed >> 28) & g->mask;

	while (g->table[i].offsets && g->table[i].tag != (uint32_t)(mixed >> 20))
		i = (i + 1) & g->mask;
	return &g->table[i];
}

static void gram_add(struct match_grams *g, uint64_t gram, size_t offset)
{
	uint64_t mixed = mix(gram);
	struct gram *place = gram_place(g, mixed);

	set_add(&g->set, mixed);
	place->tag = (uint32_t)(mixed >> 20);
	place->offsets |= 1u << offset;
}

static void grams_free(struct match_grams *g)
{
	if (!g)
		return;
	set_free(&g->set);
	table_free(g->table, (g->mask + 1) * sizeof(*g->table));
	free(g);
}

/* NULL: out of memory. */
static struct match_grams *grams_new(size_t n)
{
	struct match_grams *g = calloc(1, sizeof(*g));
	size_t size = 64;

	if (!g)
		return NULL;
	while (3 * size < 4 * n)
		size *= 2;
	g->mask = size - 1;
	g->table = table_new(size * sizeof(*g->table));
	if (!set_init(&g->set, n) || !g->table) {
		grams_free(g);
		return NULL;
	}
	return g;
}

static void pair_add(struct match_pairs *p, const uint8_t *string, size_t len, uint8_t bucket)
{
	p->low[0][string[0] & 15] |= bucket;
	p->high[0][string[0] >> 4] |= bucket;
	for (unsigned int second = 0; second < 256; second++) {
		size_t pair = string[0] | (size_t)second << 8;

		/* behind a single byte there may be any */
		if (len > 1 && second != string[1])
			continue;
		p->low[1][second & 15] |= bucket;
		p->high[1][second >> 4] |= bucket;
		bit_set(p->set, pair);
		if (len < 4)
			bit_set(p->whole, pair);
	}
	if (len >= 4)
		bit_set(p->fours, hash(load(string, 4), 16));
}

static bool is_sampled(const struct sampling *s, const struct match_entry *e)
{
	return e->len >= s->min && e->len <= s->max;
}

static void fill(struct match *m)
{
	int first = -1;
	unsigned int bucket = 0;

	for (size_t i = 0; i < m->n; i++) {
		const struct match_entry *e = &m->entries[i];
		const uint8_t *s = string_of(m, e);

		if (e->len > SHORT)
			set_add(m->begins, mix(load(s, 8)));
		if (e->len < SHORT) {
			/* strings with one first byte, which stand together, are of one group: fewer pairs that are none */
			bucket += s[0] != first;
			first = s[0];
			pair_add(m->pairs, s, e->len, (uint8_t)(1u << bucket % BUCKETS));
		}
		for (size_t k = 0; k < MATCH_SAMPLINGS; k++)
			for (size_t o = 0; is_sampled(&samplings[k], e) && o < samplings[k].stride; o++)
				gram_add(m->grams[k], load(s + o, samplings[k].q), o);
	}
}

static void tables_free(struct match *m)
{
	if (m->begins)
		set_free(m->begins);
	if (m->pairs)
		explicit_bzero(m->pairs, sizeof(*m->pairs));
	for (size_t k = 0; k < MATCH_SAMPLINGS; k++) {
		grams_free(m->grams[k]);
		m->grams[k] = NULL;
	}
	free(m->begins);
	free(m->pairs);
	m->begins = NULL;
	m->pairs = NULL;
}

int match_build(struct match *m, struct err *err)
{
	size_t count[MATCH_SAMPLINGS] = {0}, n_short = 0;
	bool ok;

	sort(m);
	tables_free(m);
	for (size_t i = 0; i < m->n; i++) {
		n_short += m->entries[i].len < SHORT;
		if (m->entries[i].len > m->longest)
			m->longest = m->entries[i].len;
		for (size_t k = 0; k < MATCH_SAMPLINGS; k++)
			count[k] += is_sampled(&samplings[k], &m->entries[i]);
	}
	m->begins = calloc(1, sizeof(*m->begins));
	ok = m->begins && set_init(m->begins, m->n);
	for (size_t k = 0; ok && k < MATCH_SAMPLINGS; k++)
		ok = !count[k] || (m->grams[k] = grams_new(count[k] * samplings[k].stride));
	if (ok && n_short)
		ok = (m->pairs = calloc(1, sizeof(*m->pairs)));
	if (!ok)
		return err_set(err, ERR_FAILED, "out of memory");
	fill(m);
	m->built = true;
	return 0;
}

void match_done(struct match *m)
{
	secret_clear(&m->strings);
	free(m->entries);
	tables_free(m);
	*m = (struct match){0};
}

/* The number of entries that are not behind the text in the order of bytes. */
static size_t up_to(const struct match *m, const uint8_t *text, size_t len)
{
	size_t low = 0, high = m->n;

	while (low < high) {
		size_t middle = (low + high) / 2;
		const struct match_entry *e = &m->entries[middle];

		if (compare(string_of(m, e), e->len, text, len) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Whatever the text begins with is the entry before it in the order, or one of those that this one begins with. */
const struct match_entry *match_at(const struct match *m, const uint8_t *text, size_t len, size_t at)
{
	size_t left = len - at < MATCH_MAX ? len - at : MATCH_MAX, i = up_to(m, text + at, left);
	uint32_t e = i ? (uint32_t)(i - 1) : NONE;

	while (e != NONE &&
	       (m->entries[e].len > left || memcmp(string_of(m, &m->entries[e]), text + at, m->entries[e].len) != 0))
		e = m->entries[e].parent;
	return e == NONE ? NULL : &m->entries[e];
}

size_t match_unfinished(const struct match *m, const uint8_t *text, size_t len, size_t from)
{
	if (len >= m->longest && m->longest && from < len - m->longest + 1)
		from = len - m->longest + 1;
	for (size_t at = from; m->n && at < len; at++) {
		size_t left = len - at, i;

		if (left >= 8 && !set_has(m->begins->words, m->begins->bits, mix(load(text + at, 8))))
			continue;
		/* the first one behind it begins with it, if any does */
		i = up_to(m, text + at, left);
		if (i < m->n && m->entries[i].len > left && memcmp(string_of(m, &m->entries[i]), text + at, left) == 0)
			return at;
	}
	return len;
}

struct scan {
	const struct match *m;
	const uint8_t *text;
	size_t len, last; /* where the last one was found, + 1 */
	match_found *found;
	void *context;
};

static void look(struct scan *s, size_t at)
{
	const struct match_entry *e;

	/* other grams of the same string */
	if (s->last == at + 1)
		return;
	e = match_at(s->m, s->text, s->len, at);
	if (!e)
		return;
	s->last = at + 1;
	s->found(s->context, at, e);
}

static void look_offsets(struct scan *s, size_t at, unsigned int offsets)
{
	for (; offsets; offsets &= offsets - 1) {
		size_t o = (size_t)__builtin_ctz(offsets);

		if (o <= at)
			look(s, at - o);
	}
}

/* Written out for each kind: q is a constant to the compiler then. What the loop reads is its own: a call would have it
 * read again. */
static inline __attribute__((always_inline)) void scan_grams(struct scan *s, const struct match_grams *g, size_t q,
							     size_t stride)
{
	const uint8_t *text = s->text;
	const uint64_t *words = g->set.words;
	size_t end = s->len < q ? 0 : s->len - q + 1;
	unsigned int bits = g->set.bits;

	for (size_t at = 0; at < end; at += stride) {
		uint64_t mixed = mix(load(text + at, q));

		if (__builtin_expect(set_has(words, bits, mixed), 0))
			look_offsets(s, at, gram_place(g, mixed)->offsets);
	}
}

static void scan_pair(struct scan *s, size_t at)
{
	const struct match_pairs *p = s->m->pairs;
	size_t pair = s->text[at] | (size_t)s->text[at + 1] << 8;

	if (!bit(p->set, pair))
		return;
	if (bit(p->whole, pair) || (at + 4 <= s->len && bit(p->fours, hash(load(s->text + at, 4), 16))))
		look(s, at);
}

/* 32 positions at once; how far it came. */
static __attribute__((target("avx2"))) size_t scan_short_avx2(struct scan *s)
{
	const struct match_pairs *p = s->m->pairs;
	const __m256i half = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
	__m256i low[2], high[2];
	size_t at = 0;

	for (size_t i = 0; i < 2; i++) {
		low[i] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p->low[i]));
		high[i] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p->high[i]));
	}
	for (; at + 33 <= s->len; at += 32) {
		__m256i groups = _mm256_set1_epi8(-1);
		unsigned int hits;

		for (size_t i = 0; i < 2; i++) {
			__m256i c = _mm256_loadu_si256((const __m256i *)(const void *)(s->text + at + i));

			groups = _mm256_and_si256(groups, _mm256_shuffle_epi8(low[i], _mm256_and_si256(c, half)));
			groups = _mm256_and_si256(
				groups, _mm256_shuffle_epi8(high[i], _mm256_and_si256(_mm256_srli_epi16(c, 4), half)));
		}
		for (hits = ~(unsigned int)_mm256_movemask_epi8(_mm256_cmpeq_epi8(groups, zero)); hits; hits &= hits - 1)
			scan_pair(s, at + (size_t)__builtin_ctz(hits));
	}
	return at;
}

static void scan_short(struct scan *s)
{
	size_t at = __builtin_cpu_supports("avx2") ? scan_short_avx2(s) : 0;

	for (; at + 1 < s->len; at++)
		scan_pair(s, at);
	if (s->len)
		look(s, s->len - 1);
}

void match_scan(const struct match *m, const uint8_t *text, size_t len, match_found *found, void *context)
{
	struct scan s = {.m = m, .text = text, .len = len, .found = found, .context = context};

	assert(m->built);
	if (m->pairs)
		scan_short(&s);
	if (m->grams[0])
		scan_grams(&s, m->grams[0], 4, SHORT - 4 + 1);
	if (m->grams[1])
		scan_grams(&s, m->grams[1], 8, LONG - 8 + 1);
	if (m->grams[2])
		scan_grams(&s, m->grams[2], 8, LONGER - 8 + 1);
}
