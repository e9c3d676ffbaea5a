#include "tools/names.h"

#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "tools/client.h"

#include <stdlib.h>
#include <string.h>

void names_done(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->list[i]);
	free(names->list);
}

static int names_add(struct names *names, const char *name, struct err *err)
{
	char **grown = names->list;

	if (names->n == LIMIT_MANIFEST_LINES)
		return err_set(err, ERR_LIMIT, "more than %u secrets at once: export folders of them",
			       LIMIT_MANIFEST_LINES);
	if (names->n == names->cap) {
		names->cap = names->cap ? 2 * names->cap : 64;
		grown = realloc(names->list, names->cap * sizeof(*grown));
	}
	if (grown)
		names->list = grown;
	if (!grown || !(names->list[names->n] = strdup(name)))
		return err_set(err, ERR_FAILED, "out of memory");
	names->n++;
	return 0;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The folders that are found wait in the list of folders. */
int names_find_secrets(const char *top, struct names *secrets, struct err *err)
{
	CLEANUP(names_done) struct names folders = {0};
	char url[LIMIT_PATH_LEN + 64], path[2 * LIMIT_PATH_LEN + 4];
	int r = names_add(&folders, top, err);

	for (size_t i = 0; r == 0 && i < folders.n; i++) {
		CLEANUP(client_reply_done) struct client_reply reply = {0};
		const char *folder = folders.list[i];
		const json_t *keys, *key;
		size_t k;

		snprintf(url, sizeof(url), "/v1/secret/metadata/%s%s?list=true", folder, *folder ? "/" : "");
		r = client_call(CLIENT_OPERATOR, "GET", url, NULL, &reply, err);
		if (r < 0)
			return r == -ERR_NOT_FOUND ? err_set(err, ERR_NOT_FOUND, "there are no secrets below %s",
							     *folder ? folder : "/")
						   : r;
		keys = json_object_get(client_data(&reply), "keys");
		json_array_foreach(keys, k, key)
		{
			const char *name = json_string_value(key) ? json_string_value(key) : "";
			size_t n = strcspn(name, "/");
			int len = snprintf(path, sizeof(path), "%s%s%.*s", folder, *folder ? "/" : "", (int)n, name);

			if ((size_t)len > LIMIT_PATH_LEN || !path_valid(path))
				return err_set(err, ERR_FAILED, "the broker lists a name that is none below %s",
					       *folder ? folder : "/");
			r = names_add(name[n] ? &folders : secrets, path, err);
			if (r < 0)
				break;
		}
	}
	if (r == 0 && secrets->n)
		qsort(secrets->list, secrets->n, sizeof(*secrets->list), compare);
	return r;
}
