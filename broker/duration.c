#include "broker/duration.h"

#include <string.h>

uint64_t duration_parse(const char *text, size_t len, uint64_t max_s)
{
	static const struct {
		const char *unit;
		uint64_t s;
	} units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
	uint64_t n = 0;
	size_t i = 0;

	for (; i < len && text[i] >= '0' && text[i] <= '9' && n <= max_s; i++)
		n = n * 10 + (uint64_t)(text[i] - '0');
	for (size_t u = 0; i && u < sizeof(units) / sizeof(units[0]); u++)
		if (strlen(units[u].unit) == len - i && memcmp(units[u].unit, text + i, len - i) == 0)
			return n <= max_s / units[u].s ? n * units[u].s : 0;
	return 0;
}
