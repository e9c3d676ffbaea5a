#pragma once
/*
 * TPM key files, "-----BEGIN TSS2 PRIVATE KEY-----" (draft-woodhouse-cert-best-practice, "TPMKey"): DER of
 * SEQUENCE { OID loadable key, [0] emptyAuth, [1] policy, parent INTEGER, pubkey OCTET STRING, privkey OCTET STRING }.
 */
#include "common/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <tss2/tss2_tpm2_types.h>

struct err;

struct tss2_key {
	uint32_t parent; /* TPM2_RH_OWNER: the ECC storage root key */
	TPM2B_PUBLIC public;
	TPM2B_PRIVATE private;
	bool has_pcr_policy;
	TPML_PCR_SELECTION pcrs;
	TPM2B_DIGEST pcr_digest;
};

/* ERR_INPUT for anything but one key of at most 2 * LIMIT_WIRE_DATA bytes of PEM; text around it is ignored. */
int tss2_pem_read(const char *text, size_t len, struct tss2_key *ret, struct err *err);
int tss2_pem_write(const struct tss2_key *key, char ret[LIMIT_WIRE_DATA], struct err *err);
