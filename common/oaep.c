#define OPENSSL_SUPPRESS_DEPRECATED /* the one function for a block that somebody else computed */
#include "common/oaep.h"

#include "common/err.h"

#include <openssl/evp.h>
#include <openssl/rsa.h>

int oaep_unpad(enum hash_type hash, const uint8_t *block, size_t len, uint8_t ret[KEY_SIGNATURE_MAX], size_t *ret_len, struct err *err)
{
	const EVP_MD *md = hash ? EVP_get_digestbyname(hash_row(hash)->name) : NULL;
	int n = md && len <= KEY_SIGNATURE_MAX
			? RSA_padding_check_PKCS1_OAEP_mgf1(ret, KEY_SIGNATURE_MAX, block, (int)len, (int)len, NULL, 0, md, md)
			: -1;

	if (n < 0)
		return err_set(err, ERR_INPUT, "the ciphertext cannot be decrypted with this key");
	*ret_len = (size_t)n;
	return 0;
}
