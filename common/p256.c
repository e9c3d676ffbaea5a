#include "common/p256.h"

#include "common/cleanup.h"
#include "common/err.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/obj_mac.h>
#include <string.h>

static void point_freep(EC_POINT **p)
{
	EC_POINT_clear_free(*p);
}

static void bn_freep(BIGNUM **b)
{
	BN_clear_free(*b);
}

static int no_memory(struct err *err)
{
	return err_set(err, ERR_FAILED, "libcrypto: out of memory");
}

/* Made once: libcrypto computes its constants anew each time, which takes longer than the look at a point. Not for several threads. */
static const EC_GROUP *p256(void)
{
	static EC_GROUP *group;

	if (!group)
		group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
	return group;
}

/* Reads an encoded point; the leading byte is checked here because libcrypto also takes forms that age forbids. */
static int point_read(const EC_GROUP *group, const uint8_t *data, size_t len, EC_POINT **ret, struct err *err)
{
	CLEANUP(point_freep) EC_POINT *p = EC_POINT_new(group);

	if (!p)
		return no_memory(err);
	if (len == P256_POINT_LEN ? data[0] != 4 : data[0] != 2 && data[0] != 3)
		return err_set(err, ERR_INPUT, "not a P-256 point");
	if (EC_POINT_oct2point(group, p, data, len, NULL) != 1 || EC_POINT_is_on_curve(group, p, NULL) != 1 ||
	    EC_POINT_is_at_infinity(group, p))
		return err_set(err, ERR_INPUT, "not a point on P-256");
	*ret = steal_ptr(&p);
	return 0;
}

int p256_check(const uint8_t point[P256_POINT_LEN], struct err *err)
{
	const EC_GROUP *group = p256();
	CLEANUP(point_freep) EC_POINT *p = NULL;

	if (!group)
		return no_memory(err);
	return point_read(group, point, P256_POINT_LEN, &p, err);
}

int p256_decompress(const uint8_t compressed[P256_COMPRESSED_LEN], uint8_t ret_point[P256_POINT_LEN], struct err *err)
{
	const EC_GROUP *group = p256();
	CLEANUP(point_freep) EC_POINT *p = NULL;
	int r;

	if (!group)
		return no_memory(err);
	r = point_read(group, compressed, P256_COMPRESSED_LEN, &p, err);
	if (r < 0)
		return r;
	if (EC_POINT_point2oct(group, p, POINT_CONVERSION_UNCOMPRESSED, ret_point, P256_POINT_LEN, NULL) !=
	    P256_POINT_LEN)
		return no_memory(err);
	return 0;
}

void p256_compress(const uint8_t point[P256_POINT_LEN], uint8_t ret[P256_COMPRESSED_LEN])
{
	ret[0] = (uint8_t)(2 | (point[P256_POINT_LEN - 1] & 1));
	memcpy(ret + 1, point + 1, 32);
}

int p256_ephemeral_ecdh(const uint8_t peer[P256_POINT_LEN], uint8_t ret_public[P256_POINT_LEN],
			uint8_t ret_shared[P256_SECRET_LEN], struct err *err)
{
	const EC_GROUP *group = p256();
	CLEANUP(point_freep) EC_POINT *their = NULL, *our = NULL, *shared = NULL;
	CLEANUP(bn_freep) BIGNUM *k = BN_secure_new(), *x = BN_secure_new();
	int r;

	if (!group || !k || !x)
		return no_memory(err);
	r = point_read(group, peer, P256_POINT_LEN, &their, err);
	if (r < 0)
		return r;
	our = EC_POINT_new(group);
	shared = EC_POINT_new(group);
	if (!our || !shared)
		return no_memory(err);
	do {
		if (BN_priv_rand_range(k, EC_GROUP_get0_order(group)) != 1)
			return err_set(err, ERR_FAILED, "libcrypto: no random numbers");
	} while (BN_is_zero(k));
	BN_set_flags(k, BN_FLG_CONSTTIME);
	if (EC_POINT_mul(group, our, k, NULL, NULL, NULL) != 1 || EC_POINT_mul(group, shared, NULL, their, k, NULL) != 1 ||
	    EC_POINT_get_affine_coordinates(group, shared, x, NULL, NULL) != 1 ||
	    EC_POINT_point2oct(group, our, POINT_CONVERSION_UNCOMPRESSED, ret_public, P256_POINT_LEN, NULL) !=
		    P256_POINT_LEN ||
	    BN_bn2binpad(x, ret_shared, P256_SECRET_LEN) != (int)P256_SECRET_LEN)
		return err_set(err, ERR_FAILED, "libcrypto: P-256 key agreement failed");
	return 0;
}
