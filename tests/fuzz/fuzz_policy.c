/* Policy patterns against paths and proven values: three lines, and what is left is values. */
#include "fuzz.h"

#include "broker/glob.h"
#include "broker/policy.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/limits.h"

#include <stdlib.h>
#include <string.h>

static char *line(char **rest)
{
	char *start = *rest, *end = strchr(start, '\n');

	*rest = end ? end + 1 : start + strlen(start);
	if (end)
		*end = '\0';
	return start;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(cleanup_free) char *text = fuzz_string(data, size);
	char *rest = text, *pattern = line(&rest), *path = line(&rest), expanded[LIMIT_PATH_LEN + 1];
	bool matches;

	glob_match(pattern, path);
	glob_match_path(pattern, path);
	if (!policy_pattern_valid(pattern) || !path_valid(path))
		return 0;
	matches = policy_pattern_matches(pattern, path, false, rest, false);
	/* no wildcard, no variable: only itself */
	if (!strpbrk(pattern, "+*{"))
		CHECK(matches == (strcmp(pattern, path) == 0));
	/* what matches without an answer for the unresolved, matches with any */
	if (matches)
		CHECK(policy_pattern_matches(pattern, path, true, rest, true));
	if (policy_expand(pattern, rest, expanded, sizeof(expanded)))
		CHECK(path_valid(expanded));
	return 0;
}
