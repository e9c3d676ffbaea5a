/* Public keys: what is taken apart by hand, libcrypto reads and writes again as it was. */
#include "fuzz.h"

#include "common/keys.h"

#include <openssl/x509.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t n[KEY_SIGNATURE_MAX], e[16], point[KEY_POINT_MAX], *der = NULL;
	size_t n_len, e_len;
	const uint8_t *p = data;
	EVP_PKEY *key;
	int len;

	if (size > KEY_SPKI_MAX || !(spki_rsa(data, size, n, &n_len, e, &e_len) || spki_point(data, size, point) > 0))
		return 0;
	key = d2i_PUBKEY(NULL, &p, (long)size);
	/* a point that is not on its curve is refused later */
	if (key) {
		len = i2d_PUBKEY(key, &der);
		CHECK(len == (int)size && memcmp(der, data, size) == 0);
	} else {
		CHECK(spki_point(data, size, point) > 32);
		CHECK(spki_verify(data, size, SIGN_ECDSA, HASH_SHA256, 0, point, 32, point, 64, NULL) < 0);
	}
	OPENSSL_free(der);
	EVP_PKEY_free(key);
	return 0;
}
