/* ECDSA signatures in DER: what is taken is written again as it was. */
#include "fuzz.h"

#include "common/keys.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t half = size && data[0] & 1 ? 32 : 48, n;
	uint8_t raw[96], der[112];

	if (size == 0)
		return 0;
	if (ecdsa_from_der(data + 1, size - 1, half, raw)) {
		n = ecdsa_to_der(raw, half, der);
		CHECK(n == size - 1 && memcmp(der, data + 1, n) == 0);
	}
	return 0;
}
