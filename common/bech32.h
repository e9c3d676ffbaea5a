#pragma once
/* Bech32 (BIP 173, constant 1, without its length limit), as age uses it for recipients and identities. */
#include <stddef.h>
#include <stdint.h>

struct err;

/* hrp is lower case; upper writes the whole string in capitals. ret_text holds at least bech32_len() + 1 bytes. */
size_t bech32_len(size_t hrp_len, size_t data_len);
void bech32_encode(const char *hrp, const uint8_t *data, size_t data_len, int upper, char *ret_text);

/* Decodes text (one case throughout) whose human-readable part is hrp (lower case) to exactly data_len bytes.
 * ERR_NOT_MINE: another human-readable part. ERR_INPUT: not Bech32, bad checksum, wrong length. */
int bech32_decode(const char *text, const char *hrp, uint8_t *ret_data, size_t data_len, struct err *err);
