#pragma once
/* P-256 public-key work (SEC 1, FIPS 186) through OpenSSL's libcrypto; libsodium has no NIST curves. */
#include <stdint.h>

struct err;

#define P256_POINT_LEN 65u	 /* 04 || x || y */
#define P256_COMPRESSED_LEN 33u
#define P256_SECRET_LEN 32u

/* ERR_INPUT unless point is 04 || x || y on the curve and not infinity. No hybrid, no compressed form. */
int p256_check(const uint8_t point[P256_POINT_LEN], struct err *err);
int p256_decompress(const uint8_t compressed[P256_COMPRESSED_LEN], uint8_t ret_point[P256_POINT_LEN], struct err *err);
void p256_compress(const uint8_t point[P256_POINT_LEN], uint8_t ret[P256_COMPRESSED_LEN]);
/* A fresh key pair used once: ret_public is its public point, ret_shared the x coordinate of the product with peer. */
int p256_ephemeral_ecdh(const uint8_t peer[P256_POINT_LEN], uint8_t ret_public[P256_POINT_LEN],
			uint8_t ret_shared[P256_SECRET_LEN], struct err *err);
