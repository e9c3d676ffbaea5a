#include "broker/glob.h"

#include <string.h>

/* Both up to their given lengths. Only the last '*' is ever gone back to: what came before it fits as it is. */
static bool match(const char *p, size_t p_len, const char *t, size_t t_len)
{
	size_t i = 0, k = 0, star = p_len, resume = 0;

	while (k < t_len) {
		if (i < p_len && p[i] == '*') {
			star = i++;
			resume = k;
		} else if (i < p_len && p[i] == t[k]) {
			i++;
			k++;
		} else if (star < p_len) {
			i = star + 1;
			k = ++resume;
		} else {
			return false;
		}
	}
	while (i < p_len && p[i] == '*')
		i++;
	return i == p_len;
}

bool glob_match(const char *pattern, const char *text)
{
	return match(pattern, strlen(pattern), text, strlen(text));
}

bool glob_match_path(const char *pattern, const char *path)
{
	size_t a, b;

	for (;;) {
		a = strcspn(pattern, "/");
		b = strcspn(path, "/");
		if (strcmp(pattern, "**") == 0)
			return *path != '\0';
		if (!match(pattern, a, path, b))
			return false;
		if (!pattern[a] || !path[b])
			return !pattern[a] && !path[b];
		pattern += a + 1;
		path += b + 1;
	}
}
