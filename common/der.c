#include "common/der.h"

#include <string.h>

void der_put(struct writer *w, uint8_t tag, const void *content, size_t len)
{
	writer_u8(w, tag);
	if (len > 0xffffff) {
		w->failed = true;
	} else if (len > 0xffff) {
		writer_u8(w, 0x83);
		writer_u8(w, (uint8_t)(len >> 16));
		writer_u16be(w, (uint16_t)len);
	} else if (len > 0xff) {
		writer_u8(w, 0x82);
		writer_u16be(w, (uint16_t)len);
	} else {
		if (len > 0x7f)
			writer_u8(w, 0x81);
		writer_u8(w, (uint8_t)len);
	}
	if (len)
		writer_bytes(w, content, len);
}

void der_put_integer(struct writer *w, const uint8_t *number, size_t len)
{
	uint8_t padded[1 + 64] = {0};

	while (len > 1 && *number == 0) {
		number++;
		len--;
	}
	if (len == 0 || len > 64) {
		w->failed = true;
		return;
	}
	memcpy(padded + 1, number, len);
	der_put(w, DER_INTEGER, number[0] & 0x80 ? padded : padded + 1, len + (number[0] >> 7));
}

bool der_take(const uint8_t **p, const uint8_t *end, uint8_t tag, const uint8_t **ret, size_t *ret_len)
{
	const uint8_t *at = *p;
	size_t have = (size_t)(end - at), n, head;

	if (have < 2 || at[0] != tag || at[1] == 0x80 || at[1] > 0x82 || have < 2 + (at[1] & 0x80 ? (size_t)(at[1] & 0x7f) : 0))
		return false;
	head = at[1] < 0x80 ? 2 : 2 + (size_t)(at[1] & 0x7f);
	n = at[1] < 0x80 ? at[1] : at[1] == 0x81 ? at[2] : (size_t)at[2] << 8 | at[3];
	if ((head > 2 && n < 0x80) || (head > 3 && n < 0x100) || n > have - head)
		return false;
	*ret = at + head;
	*ret_len = n;
	*p = at + head + n;
	return true;
}

size_t der_sequence_len(const uint8_t *p, size_t len)
{
	size_t n, head;

	if (len < 4 || p[0] != DER_SEQUENCE || p[1] == 0x80 || p[1] > 0x82)
		return 0;
	head = p[1] < 0x80 ? 2 : 2 + (size_t)(p[1] & 0x7f);
	n = p[1] < 0x80 ? p[1] : p[1] == 0x81 ? p[2] : (size_t)p[2] << 8 | p[3];
	return head + n <= len ? head + n : 0;
}
