#include "mask/leads.h"

#include "common/err.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const char *const parameters[] = {
	"private_token", "authenticity_token", "rss_token", "x-amz-signature", "x-amz-credential", "x-amz-security-token",
};

static const char *const token_prefixes[] = {
	"cot1_", "glpat-", "gloas-",   "gldt-",	  "glrt-",	 "glcbt-", "glrtr-",	       "glptt-",
	"glft-", "glimt-", "glagent-", "glsoat-", "glffct-",	 "gltok-", "_gitlab_session=", "ghp_",
	"gho_",	 "ghu_",   "ghs_",     "ghr_",	  "github_pat_",
};

#define BEGIN 7u

static int add(struct leads *l, const char *text, size_t len, enum lead lead, struct err *err)
{
	struct lead_text *x;

	if (l->n == LEADS_MAX || len > LEADS_PREFIX_MAX || !len)
		return err_set(err, ERR_LIMIT, "too many prefixes of tokens, or one of more than %u bytes",
			       LEADS_PREFIX_MAX);
	x = &l->list[l->n++];
	memcpy(x->text, text, len);
	x->len = (uint8_t)len;
	x->lead = lead;
	return match_add(&l->begins, text, len < BEGIN ? len : BEGIN, 0, 0, err);
}

/* In lower case, as Amazon writes it, and in upper case. */
static int add_parameter(struct leads *l, const char *name, struct err *err)
{
	size_t n = strlen(name);
	int r = 0;

	for (int writing = 0; writing < 3; writing++) {
		char text[LEADS_PREFIX_MAX];

		for (size_t i = 0; i < n; i++) {
			bool begins = i == 0 || name[i - 1] == '-' || name[i - 1] == '_';

			text[i + 1] =
				writing == 2 || (writing == 1 && begins) ? (char)toupper((unsigned char)name[i]) : name[i];
		}
		text[n + 1] = '=';
		for (const char *before = "?&"; r == 0 && *before; before++) {
			text[0] = *before;
			r = add(l, text, n + 2, LEAD_PARAMETER, err);
		}
	}
	return r;
}

int leads_make(struct leads *l, const char *const *prefixes, size_t n_prefixes, struct err *err)
{
	int r = add(l, "://", 3, LEAD_URL, err);

	for (size_t i = 0; r == 0 && i < sizeof(parameters) / sizeof(parameters[0]); i++)
		r = add_parameter(l, parameters[i], err);
	for (size_t i = 0; r == 0 && i < sizeof(token_prefixes) / sizeof(token_prefixes[0]); i++)
		r = add(l, token_prefixes[i], strlen(token_prefixes[i]), LEAD_TOKEN, err);
	for (size_t i = 0; r == 0 && i < n_prefixes; i++)
		r = add(l, prefixes[i], strlen(prefixes[i]), LEAD_TOKEN, err);
	return r == 0 ? match_build(&l->begins, err) : r;
}

void leads_done(struct leads *l)
{
	match_done(&l->begins);
	l->n = 0;
}

enum lead leads_at(const struct leads *l, const uint8_t *text, size_t len, size_t at, size_t *ret_value, bool *ret_cut)
{
	const struct lead_text *best = NULL;
	size_t left = len - at;

	*ret_cut = false;
	for (const struct lead_text *x = l->list; x < l->list + l->n; x++) {
		size_t n = x->len < left ? x->len : left;

		if ((uint8_t)x->text[0] != text[at] || memcmp(x->text, text + at, n) != 0)
			continue;
		if (n < x->len)
			*ret_cut = true;
		else if (!best || x->len > best->len)
			best = x;
	}
	if (!best)
		return LEAD_NONE;
	*ret_value = at + best->len;
	return best->lead;
}

bool lead_has(enum lead lead, uint8_t c)
{
	if (lead == LEAD_PARAMETER)
		return c > ' ' && c != 0x7f && c != '?' && c != '&';
	return lead == LEAD_TOKEN &&
	       ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c && strchr("._=-", c)));
}

/* RFC 3986 3.2.1, and what else people write there. */
static size_t part(const uint8_t *text, size_t len, size_t at, const char *ends)
{
	size_t n = 0;

	while (at + n < len && n <= LEADS_URL_PART && text[at + n] > ' ' && text[at + n] != 0x7f &&
	       !strchr(ends, text[at + n]))
		n++;
	return n;
}

int lead_password(const uint8_t *text, size_t len, size_t at, size_t *ret_start, size_t *ret_end)
{
	size_t user = at + 3, colon = user + part(text, len, user, "/:@?#\"'<>\\"), end;

	if (colon == len)
		return -1;
	if (colon - user > LEADS_URL_PART || text[colon] != ':')
		return 0;
	end = colon + 1 + part(text, len, colon + 1, "/@?#\"<>");
	if (end == len)
		return -1;
	if (end - colon - 1 > LEADS_URL_PART || end == colon + 1 || text[end] != '@')
		return 0;
	*ret_start = colon + 1;
	*ret_end = end;
	return 1;
}
