/* The masker against the cases of seven CI runners' own masking tests (tests/data/masking), each cut at every byte. */
#include "mask_stream.h"

#include "common/b64.h"

#include <jansson.h>

static struct bytes bytes_of(const json_t *j)
{
	struct bytes b = {0};
	const char *base64 = json_string_value(json_object_get(j, "b64"));

	if (base64) {
		b.data = calloc(1, strlen(base64) + 1);
		assert_true(b64_decode_padded(base64, strlen(base64), NULL, b.data, strlen(base64), &b.len));
	} else {
		b.data = strdup(json_string_value(j));
		b.len = json_string_length(j);
	}
	return b;
}

static void add_all(struct mask_values *v, const json_t *secrets)
{
	struct err err = {0};
	size_t i;
	json_t *item;

	json_array_foreach(secrets, i, item)
	{
		struct bytes b = bytes_of(item);
		bool added;

		assert_int_equal(mask_values_add(v, b.data, b.len, NULL, &added, &err), 0);
		free(b.data);
	}
	assert_int_equal(mask_values_ready(v, &err), 0);
}

/* One at a time. */
static struct mask_values *values;

static void values_for(const json_t *c)
{
	const char *prefixes[16];
	json_int_t min = json_integer_value(json_object_get(c, "min_length"));
	struct err err = {0};
	size_t i, n = 0;
	json_t *item;

	json_array_foreach(json_object_get(c, "token_prefixes"), i, item) prefixes[n++] = json_string_value(item);
	assert_int_equal(mask_values_new(min > 0 ? (size_t)min : 0, true, prefixes, n, &values, &err), 0);
	add_all(values, json_object_get(c, "secrets"));
}

static struct mask *mask_for(const json_t *c, struct bytes *out)
{
	struct mask_options o = {.text = json_string_value(json_object_get(c, "mask")), .write = collect, .context = out};
	struct mask *m = NULL;
	struct err err = {0};

	assert_int_equal(mask_new(values, &o, &m, &err), 0);
	return m;
}

/* The case's own writes, and secrets that come between them. */
static struct bytes as_written(const json_t *c)
{
	const json_t *later = json_object_get(c, "add_secrets_before_chunk");
	struct bytes out = {0};
	struct mask *m;
	size_t i;
	json_t *chunk;

	values_for(c);
	m = mask_for(c, &out);

	json_array_foreach(json_object_get(c, "chunks"), i, chunk)
	{
		struct bytes b = bytes_of(chunk);
		char number[24];

		snprintf(number, sizeof(number), "%zu", i);
		if (json_object_get(later, number))
			add_all(values, json_object_get(later, number));
		put(m, b.data, b.len);
		free(b.data);
	}
	finish(m);
	mask_values_free(&values);
	return out;
}

/* All of it in two writes; at 0: byte by byte. */
static struct bytes cut(const json_t *c, const struct bytes *all, size_t at)
{
	struct bytes out = {0};
	struct mask *m = mask_for(c, &out);

	put(m, all->data, at);
	for (size_t i = at; i < all->len; i += at ? all->len : 1)
		put(m, all->data + i, at ? all->len - at : 1);
	finish(m);
	return out;
}

static bool holds(const struct bytes *out, const json_t *list, bool wanted)
{
	size_t i;
	json_t *item;

	json_array_foreach(list, i, item)
	{
		struct bytes b = bytes_of(item);
		bool is_there = b.len && out->len && memmem(out->data, out->len, b.data, b.len);
		bool good = !b.len || is_there == wanted;

		free(b.data);
		if (!good)
			return false;
	}
	return true;
}

/* Where ours hides more than the runner did: why, and what comes out. */
static const struct more {
	const char *id, *ours;
} more[] = {
	/* base64: what holds bits of the secret begins earlier than where its second byte does */
	{"gha-011", "YWJjZDp***"},
	{"gha-007", "Ol***"},
	{"gha-010", "YWJjOl***"},
	{"gha-008", "YTp***"},
	/* Woodpecker hides nothing below four bytes; said with --min-length here */
	{"woodpecker-002", "this ******** secret: ********"},
	{"woodpecker-001", "st******** log\n********one"},
	/* as one, and not by lines */
	{"woodpecker-005", "start log\ndone\nnow\n******** ;)\nwith\n********"},
};

static void check(const json_t *c, const struct bytes *out)
{
	const char *id = json_string_value(json_object_get(c, "id"));
	const json_t *expected = json_object_get(c, "expected");
	struct bytes want = {0};

	if (expected && !json_is_null(expected))
		want = bytes_of(expected);
	for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++)
		if (strcmp(id, more[i].id) == 0) {
			free(want.data);
			want = (struct bytes){strdup(more[i].ours), strlen(more[i].ours)};
		}
	if (want.data && (out->len != want.len || memcmp(out->data, want.data, want.len) != 0))
		fail_msg("%s: '%s' instead of '%s'", id, out->data, want.data);
	if (!holds(out, json_object_get(c, "must_contain"), true) ||
	    !holds(out, json_object_get(c, "must_not_contain"), false) ||
	    !holds(out, json_object_get(c, "desired_must_not_contain"), false))
		fail_msg("%s: '%s'", id, out->data);
	free(want.data);
}

static void check_cuts(const json_t *c, const struct bytes *whole)
{
	struct bytes all = {0};
	size_t i;
	json_t *chunk;

	json_array_foreach(json_object_get(c, "chunks"), i, chunk)
	{
		struct bytes b = bytes_of(chunk);

		collect(&all, b.data, b.len, NULL);
		free(b.data);
	}
	values_for(c);
	for (i = 0; i < all.len; i++) {
		struct bytes out = cut(c, &all, i);

		if (out.len != whole->len || (out.len && memcmp(out.data, whole->data, out.len) != 0))
			fail_msg("%s cut at %zu: '%s' instead of '%s'", json_string_value(json_object_get(c, "id")), i,
				 out.data, whole->data);
		free(out.data);
	}
	mask_values_free(&values);
	free(all.data);
}

static json_t *load_cases(const char *list)
{
	static json_t *cases;
	json_error_t error;

	if (!cases)
		cases = json_load_file(TEST_DATA "/masking/cases.json", 0, &error);
	assert_non_null(cases);
	return json_object_get(cases, list);
}

static void test_peers(void **state)
{
	size_t i, n = 0;
	json_t *c;

	(void)state;
	json_array_foreach(load_cases("cases"), i, c)
	{
		struct bytes out = as_written(c);

		check(c, &out);
		if (!json_object_get(c, "add_secrets_before_chunk"))
			check_cuts(c, &out);
		free(out.data);
		n++;
	}
	assert_true(n >= 330);
}

static void test_peer_failures(void **state)
{
	size_t i, n = 0;
	json_t *c;

	(void)state;
	json_array_foreach(load_cases("peer_failures"), i, c)
	{
		const char *desired = json_string_value(json_object_get(c, "desired"));
		struct bytes out;

		json_object_set_new(c, "mask", json_string("{{MASK}}"));
		out = as_written(c);
		check(c, &out);
		assert_true(strstr(out.data, "{{MASK}}"));
		if (desired)
			assert_string_equal(out.data, desired);
		check_cuts(c, &out);
		free(out.data);
		n++;
	}
	assert_true(n >= 12);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_peers), cmocka_unit_test(test_peer_failures)};

	return cmocka_run_group_tests(tests, mask_arena, unit_arena_done);
}
