#include "broker/duration.h"

#include <stdio.h>
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

void duration_text(uint64_t s, char ret[DURATION_TEXT])
{
	unsigned long long h = s / 3600, m = s / 60 % 60, rest = s % 60;

	if (h)
		snprintf(ret, DURATION_TEXT, "%lluh%llum%llus", h, m, rest);
	else if (m)
		snprintf(ret, DURATION_TEXT, "%llum%llus", m, rest);
	else
		snprintf(ret, DURATION_TEXT, "%llus", rest);
}

bool duration_parse_go(const char *text, uint64_t max_s, uint64_t *ret_s)
{
	static const char units[] = "dhms";
	static const uint64_t seconds[] = {86400, 3600, 60, 1};
	uint64_t sum = 0, n;
	size_t unit = 0, digits;

	if (!*text)
		return false;
	while (*text) {
		for (n = 0, digits = 0; text[digits] >= '0' && text[digits] <= '9'; digits++) {
			if (digits > 12)
				return false;
			n = n * 10 + (uint64_t)(text[digits] - '0');
		}
		if (digits == 0)
			return false;
		text += digits;
		if (!*text && unit == 0) /* a number alone */
			unit = 3;
		else
			while (unit < 4 && units[unit] != *text)
				unit++;
		if (unit == 4 || n > max_s / seconds[unit])
			return false;
		sum += n * seconds[unit++];
		text += *text != '\0';
	}
	*ret_s = sum;
	return sum <= max_s;
}
