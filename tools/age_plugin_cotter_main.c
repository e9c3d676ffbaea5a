/* age-plugin-cotter: "age -d -j cotter" opens with the hardware that cotter's configuration names. */
#include "common/age.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/harden.h"
#include "tools/age_plugin.h"
#include "tools/cli.h"
#include "tools/identities.h"

#include "build-config.h"

#include <string.h>

#define FILES_MAX 16u

/* The stanzas of each file, gathered as the text of a header, so that one parser reads them. */
struct file {
	uint8_t *text;
	struct writer w;
};

struct state {
	struct file files[FILES_MAX];
	size_t n_files;
	struct identities ids;
};

static int take(void *ctx, struct age_plugin_message *m, struct err *err)
{
	struct state *s = ctx;
	size_t index = m->n_args > 2 ? strtoul(m->args[1], NULL, 10) : FILES_MAX;
	const char *args[] = {m->rest};
	struct file *f;

	if (strcmp(m->args[0], "recipient-stanza") != 0)
		return 0; /* the identity says nothing, other commands are to be ignored */
	if (index >= FILES_MAX || !m->rest)
		return err_set(err, ERR_INPUT, "age sent a malformed stanza");
	f = &s->files[index];
	if (!f->text) {
		f->text = malloc(LIMIT_AGE_HEADER);
		if (!f->text)
			return err_set(err, ERR_FAILED, "out of memory");
		f->w = writer_init(f->text, LIMIT_AGE_HEADER);
		age_header_write_intro(&f->w);
	}
	if (index >= s->n_files)
		s->n_files = index + 1;
	/* its arguments stand joined by single spaces already */
	age_header_write_stanza(&f->w, args, 1, m->body.data, m->body.len);
	return 0;
}

static int unwrap(const struct state *s, const struct age_header *header, struct secret *ret, struct err *err)
{
	int r = age_check_stanzas(header, err);

	if (r == 0)
		r = secret_new(ret, AGE_FILE_KEY_LEN, err);
	if (r < 0)
		return r;
	ret->len = AGE_FILE_KEY_LEN;
	r = -ERR_NO_MATCH;
	for (size_t i = 0; r == -ERR_NO_MATCH && i < s->ids.n; i++)
		r = s->ids.list[i].ops->unwrap(&s->ids.list[i], header, ret->data, err);
	return r;
}

static int tell_error(const char *head, const struct err *why, struct err *err)
{
	int r = age_plugin_write(head, why->msg, strlen(why->msg), err);

	return r < 0 ? r : age_plugin_answer(err);
}

static int open_file(struct state *s, size_t index, struct err *err)
{
	static const uint8_t no_key[AGE_FILE_KEY_LEN];
	CLEANUP(secret_clear) struct secret key = {0};
	struct age_header header = {0};
	struct err why = {0};
	char head[64];
	int r;

	if (!s->files[index].text)
		return 0;
	age_header_write_end(&s->files[index].w, no_key); /* age itself verifies the real MAC */
	r = age_header_parse(s->files[index].text, s->files[index].w.len, &header, &why);
	if (r == 0)
		r = unwrap(s, &header, &key, &why);
	age_header_clear(&header);
	if (r == -ERR_NO_MATCH)
		return 0; /* silence means: not mine */
	if (r < 0) {
		snprintf(head, sizeof(head), r == -ERR_AGE_HEADER ? "error stanza %zu 0" : "error internal", index);
		return tell_error(head, &why, err);
	}
	snprintf(head, sizeof(head), "file-key %zu", index);
	r = age_plugin_write(head, key.data, key.len, err);
	return r < 0 ? r : age_plugin_answer(err);
}

static int converse(struct state *s, struct err *err)
{
	struct err why = {0};
	int r = age_plugin_gather(take, s, err);

	if (r < 0)
		return r;
	if (identities_add_hardware(&s->ids, cli_config_path(NULL), &why) < 0) {
		s->n_files = 0;
		r = tell_error("error internal", &why, err);
	}
	for (size_t i = 0; r == 0 && i < s->n_files; i++)
		r = open_file(s, i, err);
	return r < 0 ? r : age_plugin_write("done", "", 0, err);
}

int main(int argc, char **argv)
{
	static const struct harden harden = {.keep_fd_below = 3, .arena_size = 1u << 18};
	const char *machine = age_plugin_machine(argc, argv);
	static struct state state;
	struct err err = {0};
	int r;

	if (!machine || strcmp(machine, "identity-v1") != 0) {
		fputs("age-plugin-cotter " COTTER_VERSION ": opens age files with the hardware of cotter's configuration\n"
		      "($COTTER_CONFIG). Put it into PATH, then: age -d -j cotter FILE\n",
		      argc > 1 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
		return argc > 1 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
	}
	r = harden_start(&harden, &err);
	if (r == 0)
		r = converse(&state, &err);
	identities_done(&state.ids);
	for (size_t i = 0; i < FILES_MAX; i++)
		free(state.files[i].text);
	if (r < 0)
		fprintf(stderr, "age-plugin-cotter: %s\n", err.msg);
	secret_arena_done();
	return err_exit_status(r);
}
