#include "mask/mask.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "mask/dense.h"
#include "mask/forms.h"
#include "mask/leads.h"

#include <assert.h>
#include <string.h>

#define WINDOW (MASK_WINDOW + MASK_SPAN + 2 * LEADS_URL_PART + MATCH_MAX)
#define OUT 65536u
#define IDLE_SHOWN                                                                                                         \
	3u /* bytes of a secret that a pause may show: with less, each line that ends like one begins would wait */
#define NO_VALUE UINT32_MAX

struct range {
	size_t start, end;
	uint32_t value; /* NO_VALUE: of a lead */
};

struct mask_values {
	struct forms forms;
	struct leads leads;
	bool has_leads;
	char (*names)[MASK_NAME_MAX + 1];
	size_t n;
};

struct mask {
	struct mask_options options;
	const struct mask_values *values;
	uint8_t *window; /* in the arena, as what is in it is not hidden yet */
	size_t len;
	size_t shown;	/* of the window's begin, by mask_idle */
	size_t covered; /* the same, hidden by what began before it */
	bool in_run;	/* the last thing written is a mask */
	enum lead open; /* the value of a lead that is gone goes on, at covered */
	struct dense dense;
	struct range *ranges;
	size_t n_ranges, cap_ranges;
	struct range *leads_seen; /* from a lead's begin to its value's */
	size_t n_leads, cap_leads;
	enum lead open_new; /* the first whose value reaches the window's end, and where it stands */
	size_t open_new_at;
	struct range token; /* the value of a token that was looked at last: others begin in it, and end where it ends */
	bool failed;	  /* no room for a range */
	size_t tail_hold; /* where a match stands whose end may come */
	size_t lead_hold;
	uint8_t *out;
	size_t out_len;
};

int mask_values_new(size_t min, bool leads, const char *const *prefixes, size_t n_prefixes, struct mask_values **ret,
		    struct err *err)
{
	CLEANUP(mask_values_free) struct mask_values *v = calloc(1, sizeof(*v));
	int r = 0;

	if (v)
		v->names = calloc(MASK_VALUES, sizeof(*v->names));
	if (!v || !v->names)
		return err_set(err, ERR_FAILED, "out of memory");
	v->forms.min = min ? min : 1;
	v->has_leads = leads;
	if (leads)
		r = leads_make(&v->leads, prefixes, n_prefixes, err);
	if (r == 0)
		r = forms_build(&v->forms, err);
	if (r == 0)
		*ret = steal_ptr(&v);
	return r;
}

void mask_values_free(struct mask_values **vp)
{
	struct mask_values *v = *vp;

	if (!v)
		return;
	forms_done(&v->forms);
	leads_done(&v->leads);
	free(v->names);
	free(v);
	*vp = NULL;
}

int mask_values_add(struct mask_values *v, const void *value, size_t len, const char *name, bool *ret_added,
		    struct err *err)
{
	int r;

	if (v->n == MASK_VALUES)
		return err_set(err, ERR_LIMIT, "at most %u secrets are hidden at once", MASK_VALUES);
	r = forms_add(&v->forms, value, len, (uint32_t)v->n, ret_added, err);
	if (r == 0 && *ret_added)
		snprintf(v->names[v->n++], sizeof(*v->names), "%s", name ? name : "");
	return r;
}

int mask_values_ready(struct mask_values *v, struct err *err)
{
	return forms_build(&v->forms, err);
}

int mask_new(struct mask_values *v, const struct mask_options *o, struct mask **ret, struct err *err)
{
	CLEANUP(mask_free) struct mask *m = calloc(1, sizeof(*m));

	if (!m)
		return err_set(err, ERR_FAILED, "out of memory");
	m->options = *o;
	m->values = v;
	m->window = secret_alloc(WINDOW);
	m->dense.bytes = secret_alloc(WINDOW);
	m->dense.marks = reallocarray(NULL, DENSE_MARKS(WINDOW), sizeof(*m->dense.marks));
	m->out = malloc(OUT);
	dense_init(&m->dense);
	if (!m->window || !m->dense.bytes || !m->dense.marks || !m->out)
		return err_set(err, ERR_FAILED, "out of memory for the masker");
	*ret = steal_ptr(&m);
	return 0;
}

void mask_free(struct mask **mp)
{
	struct mask *m = *mp;

	if (!m)
		return;
	secret_free(m->window);
	secret_free(m->dense.bytes);
	free(m->dense.marks);
	free(m->ranges);
	free(m->leads_seen);
	free(m->out);
	free(m);
	*mp = NULL;
}

/* ---- what is to be hidden ---------------------------------------------------------------------------------------------
 */

static void note(struct mask *m, struct range **list, size_t *n, size_t *cap, struct range range)
{
	if (*n == *cap) {
		size_t more = *cap ? 2 * *cap : 64;
		struct range *grown = reallocarray(*list, more, sizeof(*grown));

		if (!grown) {
			m->failed = true;
			return;
		}
		*list = grown;
		*cap = more;
	}
	assert(*list);
	(*list)[(*n)++] = range;
}

static void hide(struct mask *m, size_t start, size_t end, uint32_t value)
{
	struct range *last = m->n_ranges ? &m->ranges[m->n_ranges - 1] : NULL;

	/* what comes in order, as nearly all does, is joined at once */
	if (last && last->value == value && start >= last->start && start <= last->end && start != end) {
		if (end > last->end)
			last->end = end;
		return;
	}
	note(m, &m->ranges, &m->n_ranges, &m->cap_ranges, (struct range){start, end, value});
}

static void found_plain(void *context, size_t at, const struct match_entry *e)
{
	hide(context, at, at + e->len, e->value);
}

static bool in_base64(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c && strchr("+/-_=", c));
}

static void found_dense(void *context, size_t at, const struct match_entry *e)
{
	struct mask *m = context;
	size_t start = dense_place(&m->dense, m->window, at), end = dense_place(&m->dense, m->window, at + e->len - 1) + 1;

	if (end - start > MASK_SPAN)
		return;
	/* the last characters of base64 hold the secret's last bits, and others' */
	for (unsigned int i = 0; i < e->tail; i++) {
		if (end == m->len && start < m->tail_hold)
			m->tail_hold = start;
		if (end == m->len || !in_base64(m->window[end]))
			break;
		end++;
	}
	hide(m, start, end, e->value);
}

/* Does it reach the window's end? */
static bool hide_value(struct mask *m, enum lead lead, size_t start)
{
	bool known = lead == LEAD_TOKEN && start >= m->token.start && start < m->token.end;
	size_t end = known ? m->token.end : start;

	while (!known && end < m->len && lead_has(lead, m->window[end]))
		end++;
	if (lead == LEAD_TOKEN)
		m->token = (struct range){known ? m->token.start : start, end, NO_VALUE};
	if (end > start || lead == LEAD_PARAMETER)
		hide(m, start, end, NO_VALUE);
	return end == m->len;
}

static void found_lead(void *context, size_t at, const struct match_entry *e)
{
	struct mask *m = context;
	size_t start, end;
	bool cut;
	enum lead lead = leads_at(&m->values->leads, m->window, m->len, at, &start, &cut);
	int password = lead == LEAD_URL ? lead_password(m->window, m->len, at, &start, &end) : 0;

	(void)e;
	if ((cut || password < 0) && at < m->lead_hold)
		m->lead_hold = at;
	if (lead == LEAD_NONE || (lead == LEAD_URL && password <= 0))
		return;
	if (lead == LEAD_URL) {
		hide(m, start, end, NO_VALUE);
	} else if (hide_value(m, lead, start) && (!m->open_new || at < m->open_new_at)) {
		m->open_new = lead;
		m->open_new_at = at;
	}
	note(m, &m->leads_seen, &m->n_leads, &m->cap_leads, (struct range){at, start, NO_VALUE});
}

static void look(struct mask *m, bool final)
{
	m->n_ranges = m->n_leads = 0;
	m->tail_hold = m->lead_hold = m->len;
	m->open_new = LEAD_NONE;
	m->token = (struct range){0};
	if (m->covered)
		hide(m, 0, m->covered, NO_VALUE);
	if (m->open) {
		size_t end = m->covered;

		while (end < m->len && lead_has(m->open, m->window[end]))
			end++;
		if (end > m->covered)
			hide(m, m->covered, end, NO_VALUE);
		if (end < m->len)
			m->open = LEAD_NONE;
	}
	match_scan(&m->values->forms.plain, m->window, m->len, found_plain, m);
	if (m->values->forms.dense.n) {
		dense_make(&m->dense, m->window, m->len, final);
		match_scan(&m->values->forms.dense, m->dense.bytes, m->dense.len, found_dense, m);
	}
	if (m->values->has_leads)
		match_scan(&m->values->leads.begins, m->window, m->len, found_lead, m);
}

/* ---- what may be shown --------------------------------------------------------------------------------------------------
 */

static size_t min_of(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Where something begins that a secret may become; what is no longer than seen does not count. */
static size_t unfinished(const struct mask *m, size_t seen)
{
	size_t h = match_unfinished(&m->values->forms.plain, m->window, m->len, 0), place, p = 0;

	if (m->len - h <= seen)
		h = m->len;
	if (!m->values->forms.dense.n)
		return h;
	h = min_of(h, min_of(m->tail_hold, m->dense.unfinished));
	while ((p = match_unfinished(&m->values->forms.dense, m->dense.bytes, m->dense.len, p)) < m->dense.len) {
		place = dense_place(&m->dense, m->window, p);
		/* what is spread too far is let go */
		if (m->len - place <= MASK_SPAN)
			return m->dense.len - p <= seen ? h : min_of(h, place);
		p++;
	}
	return h;
}

/* The first byte that may belong to something which is not complete. */
static size_t hold(const struct mask *m)
{
	size_t h = unfinished(m, 0), before;

	if (m->values->has_leads)
		h = min_of(h, min_of(m->lead_hold, match_unfinished(&m->values->leads.begins, m->window, m->len, 0)));
	do {
		before = h;
		/* what is cut here must be seen whole again */
		if (m->values->forms.dense.n)
			h = dense_outside(&m->dense, m->window, m->len, h);
		for (size_t i = m->n_leads; i-- > 0;)
			if (m->leads_seen[i].start < h && h < m->leads_seen[i].end)
				h = m->leads_seen[i].start;
	} while (h < before);
	/* a caller's prefix that overlaps itself may go back for ever */
	return m->len - h > WINDOW - MASK_WINDOW ? m->len - (WINDOW - MASK_WINDOW) : h;
}

static int flush(struct mask *m, struct err *err)
{
	size_t n = m->out_len;

	m->out_len = 0;
	return n ? m->options.write(m->options.context, m->out, n, err) : 0;
}

static int show(struct mask *m, const void *data, size_t len, struct err *err)
{
	int r = len > OUT - m->out_len ? flush(m, err) : 0;

	if (r < 0)
		return r;
	if (len > OUT / 4) {
		r = flush(m, err);
		return r == 0 ? m->options.write(m->options.context, data, len, err) : r;
	}
	memcpy(m->out + m->out_len, data, len);
	m->out_len += len;
	return 0;
}

static int show_mask(struct mask *m, uint32_t value, struct err *err)
{
	char text[MASK_NAME_MAX + 16];

	if (m->in_run)
		return 0;
	m->in_run = true;
	if (m->options.text)
		return show(m, m->options.text, strlen(m->options.text), err);
	if (value == NO_VALUE || !m->values->names[value][0])
		return show(m, "***", 3, err);
	snprintf(text, sizeof(text), "***(%s)***", m->values->names[value]);
	return show(m, text, strlen(text), err);
}

static int show_plain(struct mask *m, size_t start, size_t end, struct err *err)
{
	if (start < m->shown)
		start = min_of(m->shown, end);
	if (start >= end)
		return 0;
	m->in_run = false;
	return show(m, m->window + start, end - start, err);
}

/* The first to begin, and of those the longest. */
static int compare_ranges(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return (x->end < y->end) - (x->end > y->end);
}

/* Shows what stands before h, and forgets it. */
static int let_go(struct mask *m, size_t h, struct err *err)
{
	size_t at = 0;
	int r = 0;

	if (m->n_ranges)
		qsort(m->ranges, m->n_ranges, sizeof(*m->ranges), compare_ranges);
	for (size_t i = 0; r == 0 && i < m->n_ranges; i++) {
		const struct range *range = &m->ranges[i];
		bool empty = range->start == range->end;

		if (range->start > h)
			break;
		/* at h begins what will be seen again; but the value of a lead that goes now */
		if (range->start == h && range->value != NO_VALUE)
			continue;
		if (range->end < at || (range->end == at && !empty))
			continue;
		r = show_plain(m, at, range->start, err);
		if (r == 0 && (range->end > m->shown || empty))
			r = show_mask(m, range->value, err);
		at = range->end > at ? range->end : at;
	}
	if (r == 0)
		r = show_plain(m, at, h, err);
	/* the value of a new lead before h begins at h or before it: hold() sees to that. One that is open still is wider than
	 * what begins in it */
	if (m->open_new && !m->open && m->open_new_at < h)
		m->open = m->open_new;
	if (at < m->covered)
		at = m->covered;
	m->covered = m->open ? m->len - h : at > h ? at - h : 0;
	m->len -= h;
	memmove(m->window, m->window + h, m->len);
	m->shown = m->shown > h ? m->shown - h : 0;
	return r == 0 ? flush(m, err) : r;
}

uint8_t *mask_room(struct mask *m, size_t *ret_len)
{
	*ret_len = WINDOW - m->len;
	if (*ret_len > MASK_WINDOW)
		*ret_len = MASK_WINDOW;
	return m->window + m->len;
}

static int step(struct mask *m, bool final, struct err *err)
{
	look(m, final);
	if (m->failed)
		return err_set(err, ERR_FAILED, "out of memory: what could not be looked at is not shown");
	return let_go(m, final ? m->len : hold(m), err);
}

int mask_put(struct mask *m, size_t len, struct err *err)
{
	assert(len <= WINDOW - m->len);
	m->len += len;
	return m->len ? step(m, false, err) : 0;
}

bool mask_waits(const struct mask *m)
{
	return m->len > m->shown;
}

int mask_idle(struct mask *m, struct err *err)
{
	size_t end;
	int r = mask_put(m, 0, err);

	if (r < 0 || !m->len)
		return r;
	look(m, false);
	end = unfinished(m, IDLE_SHOWN);
	/* shown, and kept all the same: what follows may make a secret of it, and the rest of that is hidden */
	for (size_t i = 0; i < m->n_ranges; i++)
		end = min_of(end, m->ranges[i].start);
	r = show_plain(m, 0, end, err);
	if (end > m->shown)
		m->shown = end;
	return r == 0 ? flush(m, err) : r;
}

int mask_end(struct mask *m, struct err *err)
{
	return m->len ? step(m, true, err) : 0;
}
