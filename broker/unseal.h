#pragma once
/*
 * Opening a sealed file with the hardware, without blocking: caps, structure, bind stanza, tag match, point on the curve,
 * hardware, header MAC, payload, in this order; nothing is released on any failure. One file that several ask for at
 * once is opened once.
 */
#include "broker/hardware.h"
#include "common/age_header.h"
#include "common/secret.h"

#include <stdbool.h>

struct unseal;

struct unseals {
	struct hardware *hardware;
	struct unseal *running;
};

/* plain is NULL when result < 0; it is only lent. has_bind and bind tell what the file says of itself. */
typedef void unseal_done(void *ctx, int result, const struct secret *plain, const struct age_header *header,
			 const char *message);

/* path/version are what the file must be bound to, if it is; name is what equal requests share ("" shares nothing). done
 * may be called before this returns (with a failure). sealed is copied. asker: as with hardware_agree. */
void unseal_start(struct unseals *u, const char *path, uint64_t version, const uint8_t *sealed, size_t len, bool share, uint64_t asker,
		  unseal_done *done, void *ctx);
/* ctx's caller is gone. */
void unseal_cancel(struct unseals *u, void *ctx);
void unseals_done(struct unseals *u);
