/* age-plugin-tag: lets an age without tagged recipients (1.1, 1.2) and SOPS seal to age1tag1…. Public keys only. */
#include "common/age.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/harden.h"
#include "tools/age_plugin.h"
#include "tools/cli.h"

#include "build-config.h"

#include <string.h>

#define FILES_MAX 64u

struct state {
	struct age_recipient recipients[LIMIT_RECIPIENTS];
	size_t n_recipients;
	struct secret keys[FILES_MAX];
	size_t n_keys;
	char problem[600];
};

static int error(const char *kind, const char *message, struct err *err)
{
	int r = age_plugin_write(kind, message, strlen(message), err);

	return r < 0 ? r : age_plugin_answer(err);
}

/* What cannot be used is remembered as an error to be told in phase two. */
static int take(void *ctx, struct age_plugin_message *m, struct err *err)
{
	struct state *s = ctx;
	struct err e = {0};

	if (strcmp(m->args[0], "add-recipient") == 0 && m->n_args == 2) {
		if (s->n_recipients == LIMIT_RECIPIENTS)
			return err_set(err, ERR_LIMIT, "too many recipients");
		if (age_recipient_parse(m->args[1], &s->recipients[s->n_recipients], &e) < 0)
			snprintf(s->problem, sizeof(s->problem), "%s", e.msg);
		else
			s->n_recipients++;
	} else if (strcmp(m->args[0], "add-identity") == 0) {
		snprintf(s->problem, sizeof(s->problem), "age-plugin-tag has no identities: it only seals");
	} else if (strcmp(m->args[0], "wrap-file-key") == 0) {
		if (s->n_keys == FILES_MAX || m->body.len != AGE_FILE_KEY_LEN)
			return err_set(err, ERR_INPUT, "age sent a malformed file key");
		s->keys[s->n_keys++] = m->body;
		m->body = (struct secret){0};
	}
	return 0; /* other commands are to be ignored */
}

static int wrap_all(const struct state *s, struct err *err)
{
	uint8_t buf[1024];
	char prefix[64];
	int r = 0;

	for (size_t f = 0; r == 0 && f < s->n_keys; f++) {
		for (size_t i = 0; r == 0 && i < s->n_recipients; i++) {
			struct writer w = writer_init(buf, sizeof(buf));

			r = s->recipients[i].ops->wrap(&s->recipients[i], s->keys[f].data, &w, err);
			snprintf(prefix, sizeof(prefix), "recipient-stanza %zu", f);
			if (r == 0)
				r = age_plugin_write_stanza(prefix, &w, err);
			if (r == 0)
				r = age_plugin_answer(err);
		}
	}
	return r;
}

static int converse(struct state *s, struct err *err)
{
	int r = age_plugin_gather(take, s, err);

	if (r == 0 && s->problem[0])
		r = error("error recipient 0", s->problem, err);
	else if (r == 0)
		r = wrap_all(s, err);
	return r < 0 ? r : age_plugin_write("done", "", 0, err);
}

int main(int argc, char **argv)
{
	static const struct harden harden = {.keep_fd_below = 3, .arena_size = 65536};
	const char *machine = age_plugin_machine(argc, argv);
	static struct state state;
	struct err err = {0};
	int r;

	if (!machine || strcmp(machine, "recipient-v1") != 0) {
		fputs("age-plugin-tag " COTTER_VERSION ": seals to age1tag1... recipients for age and SOPS, which start it.\n"
		      "Put it into PATH, then: age -r age1tag1... FILE\n",
		      argc > 1 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
		return argc > 1 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
	}
	r = harden_start(&harden, &err);
	if (r == 0)
		r = converse(&state, &err);
	for (size_t i = 0; i < state.n_keys; i++)
		secret_clear(&state.keys[i]);
	if (r < 0)
		fprintf(stderr, "age-plugin-tag: %s\n", err.msg);
	secret_arena_done();
	return err_exit_status(r);
}
