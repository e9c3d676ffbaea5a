/* ID tokens: neither their structure nor their claims let anybody in who is not meant. The first byte chooses which. */
#include "fuzz.h"

#include "broker/config.h"
#include "broker/identity_jwt.h"
#include "broker/json.h"
#include "broker/jwks.h"
#include "broker/jwt.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <string.h>

/* RFC 8037, appendix A.2 */
static char ed25519_x[] = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", kty[] = "OKP", crv[] = "Ed25519";

static void check_token(const char *text, size_t size)
{
	const struct jwks_key key = {.kty = kty, .crv = crv, .x = ed25519_x};
	CLEANUP(jwt_done) struct jwt j = {0};
	struct err err = {0};
	int r = jwt_parse(text, size, &j, &err);

	fuzz_check_result(r, &err);
	if (r < 0)
		return;
	CHECK(j.alg && j.signed_len < size && j.header_len < j.signed_len && j.signature_len);
	CHECK(json_is_object(j.header) && json_is_object(j.claims));
	r = jwt_verify(&j, &key, &err);
	/* nobody else has the key that signed the example in the corpus */
	CHECK(r == -ERR_LOGIN || strcmp(j.alg, "EdDSA") == 0);
}

static void check_claims(const char *text, size_t size)
{
	static char audience[] = "cotter", claim[] = "project_id", value[] = "20", pointer[] = "/a/b", glob[] = "x*y";
	static char *audiences[] = {audience}, *values[] = {value}, *globs[] = {glob}, mapped[] = "ref", variable[] = "ref";
	static struct config_claim claims[] = {{claim, values, 1}, {pointer, globs, 1}};
	static struct config_mapping mappings[] = {{mapped, variable}};
	static struct config_issuer issuer = {.name = "ci", .issuer = "https://ci.example"};
	static struct config_role role = {.name = "r", .issuer = "ci", .audiences = audiences, .n_audiences = 1, .claims = claims, .n_claims = 2,
					  .mappings = mappings, .n_mappings = 1, .glob = true, .leeway_ms = 60000, .scope = "{{ref}}"};
	static struct config config = {.issuers = &issuer, .n_issuers = 1, .roles = &role, .n_roles = 1};
	CLEANUP(json_cleanup) json_t *j = NULL;
	struct identity id;
	struct err err = {0};

	if (json_parse(text, size, &j, &err) < 0)
		return;
	if (identity_jwt_claims(&config, &role, j, 1700000000000, true, &id, &err) == 0) {
		const char *iss = json_string_value(json_object_get(j, "iss"));

		CHECK(iss && strcmp(iss, issuer.issuer) == 0 && json_object_get(j, "project_id") && json_object_get(j, "exp"));
		CHECK(strncmp(id.meta, "role=r\nref=", 11) == 0 && strstr(id.meta, "\nscope="));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin();
	CLEANUP(cleanup_free) char *text = size ? fuzz_string(data + 1, size - 1) : NULL;

	json_set_alloc_funcs(malloc, free);
	if (text && data[0] == 'c')
		check_claims(text, size - 1);
	else if (text)
		check_token(text, size - 1);
	fuzz_end(used);
	return 0;
}
