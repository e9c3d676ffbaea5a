#include "mask/escapes.h"

#include "common/cleanup.h"
#include "common/err.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static size_t put(char out[8], const char *text)
{
	size_t n;

	for (n = 0; text[n]; n++)
		out[n] = text[n];
	return n;
}

static bool is_alnum(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* ---- JSON, C, Go ------------------------------------------------------------------------------------------------- */

static size_t control(uint8_t c, char out[8])
{
	static const char letters[] = "btnvfr"; /* 8 to 13 */

	if (c < 8 || c > 13 || c == 11)
		return (size_t)snprintf(out, 8, "\\u%04x", c);
	out[0] = '\\';
	out[1] = letters[c - 8];
	return 2;
}

static size_t json(uint8_t c, char out[8])
{
	if (c < 0x20)
		return control(c, out);
	return c == '"' ? put(out, "\\\"") : c == '\\' ? put(out, "\\\\") : 0;
}

static size_t json_slash(uint8_t c, char out[8])
{
	return c == '/' ? put(out, "\\/") : json(c, out);
}

static size_t json_html(uint8_t c, char out[8])
{
	return c == '<' || c == '>' || c == '&' ? (size_t)snprintf(out, 8, "\\u%04x", c) : json(c, out);
}

static size_t json_html_upper(uint8_t c, char out[8])
{
	return c == '<' || c == '>' || c == '&' || c == '\'' ? (size_t)snprintf(out, 8, "\\u%04X", c) : json(c, out);
}

/* ---- shells ------------------------------------------------------------------------------------------------------ */

static size_t bash_quoted(uint8_t c, char out[8])
{
	return c == '\'' ? put(out, "'\\''") : 0;
}

static size_t ansi_c(uint8_t c, char out[8])
{
	if (c == '\'' || c == '\\') {
		out[0] = '\\';
		out[1] = (char)c;
		return 2;
	}
	return c < 0x20 ? control(c, out) : 0;
}

static size_t backslashed(uint8_t c, char out[8])
{
	if (c >= 0x80 || is_alnum(c) || (c && strchr("_@%+=:,./-", c)))
		return 0;
	out[0] = '\\';
	out[1] = (char)c;
	return 2;
}

static size_t doubled_quote(uint8_t c, char out[8])
{
	return c == '\'' ? put(out, "''") : 0;
}

static size_t doubled_dollar(uint8_t c, char out[8])
{
	return c == '$' ? put(out, "$$") : 0;
}

static size_t careted(uint8_t c, char out[8])
{
	if (!c || !strchr("^&|<>()%!\"", c))
		return 0;
	out[0] = '^';
	out[1] = (char)c;
	return 2;
}

static size_t command_data(uint8_t c, char out[8])
{
	return c == '%' ? put(out, "%25") : c == '\n' ? put(out, "%0A") : c == '\r' ? put(out, "%0D") : 0;
}

static int quoted_with(const char *quote, const struct escape *e, const uint8_t *value, size_t len, struct secret *ret,
		       struct err *err)
{
	CLEANUP(secret_clear) struct secret inner = {0};
	int r = escape_make(e, value, len, &inner, err);

	if (r == 0)
		r = secret_append(ret, quote, 1, err);
	if (r == 0)
		r = secret_append(ret, inner.data, inner.len, err);
	return r == 0 ? secret_append(ret, quote, 1, err) : r;
}

static int bash_word(const uint8_t *value, size_t len, struct secret *ret, struct err *err)
{
	return quoted_with("'", &(struct escape){.byte = bash_quoted}, value, len, ret, err);
}

/* dash and busybox put runs of quotes between double quotes */
static int ash(const uint8_t *value, size_t len, struct secret *ret, struct err *err)
{
	int r = 0;

	for (size_t i = 0, n; r == 0 && i < len; i += n) {
		bool quotes = value[i] == '\'';

		for (n = 1; i + n < len && (value[i + n] == '\'') == quotes; n++)
			;
		if (quotes)
			r = secret_append(ret, "'\"", 2, err);
		if (r == 0)
			r = secret_append(ret, value + i, n, err);
		if (r == 0 && quotes)
			r = secret_append(ret, "\"'", 2, err);
	}
	return r;
}

static int ash_word(const uint8_t *value, size_t len, struct secret *ret, struct err *err)
{
	return quoted_with("'", &(struct escape){.all = ash}, value, len, ret, err);
}

/* ---- what becomes of a value in which somebody wrote escapes ------------------------------------------------------- */

static int without(char mark, bool letters, const uint8_t *value, size_t len, struct secret *ret, struct err *err)
{
	static const char from[] = "ntrbfav0", to[] = "\n\t\r\b\f\a\v";
	int r = 0;

	for (size_t i = 0; r == 0 && i < len; i++) {
		const char *letter;
		uint8_t c = value[i];

		if (c == (uint8_t)mark) {
			if (++i == len)
				break;
			c = value[i];
			letter = letters && c ? strchr(from, c) : NULL;
			if (letter)
				c = (uint8_t)to[letter - from];
		}
		r = secret_append(ret, &c, 1, err);
	}
	return r;
}

static int backslash_decoded(const uint8_t *value, size_t len, struct secret *ret, struct err *err)
{
	return without('\\', true, value, len, ret, err);
}

static int backslash_removed(const uint8_t *value, size_t len, struct secret *ret, struct err *err)
{
	return without('\\', false, value, len, ret, err);
}

static int caret_removed(const uint8_t *value, size_t len, struct secret *ret, struct err *err)
{
	return without('^', false, value, len, ret, err);
}

/* ---- XML, URLs ----------------------------------------------------------------------------------------------------- */

static size_t markup(uint8_t c, char out[8], const char *quote, const char *apostrophe)
{
	switch (c) {
	case '&': return put(out, "&amp;");
	case '<': return put(out, "&lt;");
	case '>': return put(out, "&gt;");
	case '"': return put(out, quote);
	case '\'': return put(out, apostrophe);
	default: return 0;
	}
}

static size_t xml(uint8_t c, char out[8])
{
	return markup(c, out, "&quot;", "&apos;");
}

static size_t html(uint8_t c, char out[8])
{
	return markup(c, out, "&#34;", "&#39;");
}

static size_t html_quot(uint8_t c, char out[8])
{
	return markup(c, out, "&quot;", "&#39;");
}

static size_t html_hex(uint8_t c, char out[8])
{
	return markup(c, out, "&quot;", "&#x27;");
}

static size_t markup_text(uint8_t c, char out[8])
{
	return markup(c, out, "\"", "'");
}

static size_t percent(uint8_t c, char out[8], const char *kept, const char *format)
{
	if (is_alnum(c) || (c && strchr(kept, c)))
		return 0;
	return (size_t)snprintf(out, 8, format[0] == 'X' ? "%%%02X" : "%%%02x", c);
}

#define UNRESERVED "-_.~"

static size_t uri(uint8_t c, char out[8])
{
	return percent(c, out, UNRESERVED, "X");
}

static size_t uri_lower(uint8_t c, char out[8])
{
	return percent(c, out, UNRESERVED, "x");
}

static size_t uri_component(uint8_t c, char out[8])
{
	return percent(c, out, UNRESERVED "!*'()", "X");
}

static size_t uri_path(uint8_t c, char out[8])
{
	return percent(c, out, UNRESERVED "$&+=:@", "X");
}

static size_t uri_whole(uint8_t c, char out[8])
{
	return percent(c, out, UNRESERVED "!*'();/?:@&=+$,#", "X");
}

static size_t form_upper(uint8_t c, char out[8])
{
	return c == ' ' ? put(out, "+") : uri(c, out);
}

static size_t form_lower(uint8_t c, char out[8])
{
	return c == ' ' ? put(out, "+") : uri_lower(c, out);
}

static size_t form_browser(uint8_t c, char out[8])
{
	return c == ' ' ? put(out, "+") : percent(c, out, "-_.*", "X");
}

const struct escape escapes[] = {
	{.byte = json},
	{.byte = json_slash},
	{.byte = json_html},
	{.byte = json_html_upper},
	{.byte = bash_quoted},
	{.byte = ansi_c},
	{.byte = backslashed},
	{.byte = doubled_quote},
	{.byte = doubled_dollar},
	{.byte = careted},
	{.byte = command_data},
	{.all = bash_word},
	{.all = ash},
	{.all = ash_word},
	{.all = backslash_decoded},
	{.all = backslash_removed},
	{.all = caret_removed},
	{.byte = xml},
	{.byte = html},
	{.byte = html_quot},
	{.byte = html_hex},
	{.byte = markup_text},
	{.byte = uri},
	{.byte = uri_lower},
	{.byte = uri_component},
	{.byte = uri_path},
	{.byte = uri_whole},
	{.byte = form_upper},
	{.byte = form_lower},
	{.byte = form_browser},
};
const size_t n_escapes = sizeof(escapes) / sizeof(escapes[0]);

int escape_make(const struct escape *e, const uint8_t *value, size_t len, struct secret *ret, struct err *err)
{
	int r = 0;

	if (e->all)
		return e->all(value, len, ret, err);
	for (size_t i = 0; r == 0 && i < len; i++) {
		char out[8];
		size_t n = e->byte(value[i], out);

		r = n ? secret_append(ret, out, n, err) : secret_append(ret, value + i, 1, err);
	}
	return r;
}
