/* A public key and principals that somebody wants certified: whatever comes out, ssh's own order of fields is kept. */
#include "fuzz.h"

#include "broker/sshcert.h"
#include "common/err.h"
#include "common/sshkey.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char any[] = "*", pty[] = "permit-pty", *names[] = {any}, *extensions[] = {pty};
	const struct config_cert_role role = {.names = names, .n_names = 1, .extensions = extensions, .n_extensions = 1};
	size_t used = fuzz_begin(), len = 0, n;
	char *text = fuzz_string(data, size), *newline = strchr(text, '\n'), type[64];
	struct sshcert_request q = {.role = &role, .public_key = text, .principals = "", .key_id = "id", .extensions = extensions, .n_extensions = 1,
				    .serial = 7};
	const uint8_t *name;
	uint8_t *tbs = malloc(LIMIT_CERTIFICATE);
	struct err err = {0};
	struct reader r;
	int result;

	CHECK(tbs);
	if (newline) {
		*newline = '\0';
		q.principals = newline + 1;
	}
	result = sshcert_build(&q, (const uint8_t *)"ca", 2, tbs, &len, type, &err);
	fuzz_check_result(result, &err);
	if (result == 0) {
		r = reader_init(tbs, len);
		name = ssh_read_string(&r, &n);
		CHECK(ssh_is_text(name, n, type));
		ssh_read_string(&r, &n);
		CHECK(!r.failed && n == 32);
	}
	free(tbs);
	free(text);
	fuzz_end(used);
	return 0;
}
