#pragma once
/* DER (X.690), the little of it that is written by hand. */
#include "common/buf.h"

/* One element of at most 16,777,215 bytes of content. content may be NULL with len 0. */
void der_put(struct writer *w, uint8_t tag, const void *content, size_t len);
/* An INTEGER of a number without a sign, big-endian: as short as it can be, positive. At most 64 bytes. */
void der_put_integer(struct writer *w, const uint8_t *number, size_t len);
/* The content of the element with that tag that *p begins with, of at most 65,535 bytes, its length as short as it can be; *p goes
 * behind it. false: there is none, or not all of it. */
bool der_take(const uint8_t **p, const uint8_t *end, uint8_t tag, const uint8_t **ret, size_t *ret_len);
/* Bytes of the SEQUENCE that p begins with, of at most 65,535 bytes of content; 0: there is none, or not all of it. */
size_t der_sequence_len(const uint8_t *p, size_t len);

#define DER_INTEGER 0x02
#define DER_BIT_STRING 0x03
#define DER_OCTET_STRING 0x04
#define DER_SEQUENCE 0x30
#define DER_EXPLICIT(n) (uint8_t)(0xa0 | (n))
