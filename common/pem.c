#include "common/pem.h"

#include <sodium.h>

#define LINE 48u /* bytes; 64 characters */

void pem_put(struct writer *w, const char *kind, const uint8_t *der, size_t len, const char *newline)
{
	char line[LINE / 3 * 4 + 1];

	writer_printf(w, "-----BEGIN %s-----%s", kind, newline);
	for (size_t pos = 0, n; pos < len; pos += n) {
		n = len - pos < LINE ? len - pos : LINE;
		sodium_bin2base64(line, sizeof(line), der + pos, n, sodium_base64_VARIANT_ORIGINAL);
		writer_str(w, line);
		writer_str(w, newline);
	}
	writer_printf(w, "-----END %s-----%s", kind, newline);
}
