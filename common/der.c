#include "common/der.h"

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
