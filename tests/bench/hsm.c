/*
 * Signs, or agrees on a key, over and over through a PKCS#11 module: MODULE COUNT ec|rsa|ecdh [PIN]. Waits for a line on standard input when it is ready, so that
 * several can begin at once. Prints median microseconds, and when it began and ended (CLOCK_MONOTONIC, seconds). Status 2: the module
 * shows no such key (SoftHSM does that while others log in).
 */
#include "bench/clock.h"

#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <string.h>

static CK_FUNCTION_LIST *module;

static void check(CK_RV rv, const char *what)
{
	if (rv == CKR_OK)
		return;
	fprintf(stderr, "%s: 0x%lx\n", what, rv);
	exit(1);
}

/* What is done over and over. */
struct work {
	const char *name;
	CK_KEY_TYPE type;
	CK_ATTRIBUTE_TYPE may;
	void (*once)(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key);
};

/* a DigestInfo of SHA-256 (RFC 8017, section 9.2), of which ECDSA signs what is behind the 19 bytes */
static CK_BYTE info[] = "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
			"0123456789abcdef0123456789abcdef";

static void sign(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, CK_MECHANISM_TYPE type, CK_BYTE *data, CK_ULONG data_len)
{
	CK_MECHANISM mechanism = {type, NULL, 0};
	CK_BYTE signature[512];
	CK_ULONG len = sizeof(signature);

	check(module->C_SignInit(session, &mechanism, key), "C_SignInit");
	check(module->C_Sign(session, data, data_len, signature, &len), "C_Sign");
}

static void sign_ec(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key)
{
	sign(session, key, CKM_ECDSA, info + 19, 32);
}

static void sign_rsa(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key)
{
	sign(session, key, CKM_RSA_PKCS, info, 51);
}

/* With P-256's base point (SEC 2, section 2.4.2) in place of somebody's key. */
static void agree(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key)
{
	static CK_BYTE point[] = "\x04\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96"
				 "\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5";
	CK_OBJECT_CLASS class = CKO_SECRET_KEY;
	CK_KEY_TYPE type = CKK_GENERIC_SECRET;
	CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
	CK_BYTE value[32];
	CK_ULONG len = sizeof(value);
	CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof(class)},	 {CKA_KEY_TYPE, &type, sizeof(type)}, {CKA_TOKEN, &no, sizeof(no)},
				   {CKA_SENSITIVE, &no, sizeof(no)}, {CKA_EXTRACTABLE, &yes, sizeof(yes)}, {CKA_VALUE_LEN, &len, sizeof(len)}},
		     shared = {CKA_VALUE, value, sizeof(value)};
	CK_ECDH1_DERIVE_PARAMS params = {.kdf = CKD_NULL, .public_data = point, .public_data_len = sizeof(point) - 1};
	CK_MECHANISM mechanism = {CKM_ECDH1_DERIVE, &params, sizeof(params)};
	CK_OBJECT_HANDLE derived;

	check(module->C_DeriveKey(session, &mechanism, key, template, sizeof(template) / sizeof(template[0]), &derived), "C_DeriveKey");
	check(module->C_GetAttributeValue(session, derived, &shared, 1), "C_GetAttributeValue");
	check(module->C_DestroyObject(session, derived), "C_DestroyObject");
}

static const struct work works[] = {{"ec", CKK_EC, CKA_SIGN, sign_ec}, {"rsa", CKK_RSA, CKA_SIGN, sign_rsa}, {"ecdh", CKK_EC, CKA_DERIVE, agree}};

static CK_OBJECT_HANDLE find(CK_SLOT_ID slot, const struct work *w, const char *pin, CK_SESSION_HANDLE *session)
{
	CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
	CK_KEY_TYPE type = w->type;
	CK_BBOOL may = CK_FALSE;
	CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof(class)}, {CKA_KEY_TYPE, &type, sizeof(type)}}, use = {w->may, &may, sizeof(may)};
	CK_OBJECT_HANDLE handles[8], found = 0;
	CK_ULONG n = 0;

	if (module->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, session) != CKR_OK)
		return 0;
	module->C_Login(*session, CKU_USER, (CK_UTF8CHAR *)(size_t)pin, pin ? strlen(pin) : 0);
	check(module->C_FindObjectsInit(*session, template, 2), "C_FindObjectsInit");
	check(module->C_FindObjects(*session, handles, 8, &n), "C_FindObjects");
	check(module->C_FindObjectsFinal(*session), "C_FindObjectsFinal");
	for (CK_ULONG i = 0; i < n && !found; i++)
		if (module->C_GetAttributeValue(*session, handles[i], &use, 1) == CKR_OK && may)
			found = handles[i];
	return found;
}

int main(int argc, char **argv)
{
	CK_RV (*get)(CK_FUNCTION_LIST **list);
	CK_SLOT_ID slots[16];
	CK_ULONG n = 16;
	CK_SESSION_HANDLE session = 0;
	CK_OBJECT_HANDLE key = 0;
	size_t count = argc > 3 ? strtoul(argv[2], NULL, 10) : 0;
	double *times = calloc(count + 1, sizeof(*times)), began, start;
	void *library = count ? dlopen(argv[1], RTLD_NOW) : NULL;
	const struct work *w = works;

	if (!library || !times) {
		fprintf(stderr, "usage: MODULE COUNT ec|rsa|ecdh [PIN]: %s\n", dlerror());
		return 1;
	}
	while (strcmp(w->name, argv[3]) != 0 && w < works + 2)
		w++;
	*(void **)&get = dlsym(library, "C_GetFunctionList");
	check(get(&module), "C_GetFunctionList");
	check(module->C_Initialize(NULL), "C_Initialize");
	check(module->C_GetSlotList(CK_TRUE, slots, &n), "C_GetSlotList");
	for (CK_ULONG i = 0; i < n && !key; i++)
		key = find(slots[i], w, argc > 4 ? argv[4] : NULL, &session);
	if (!key)
		return 2;
	began = clock_start();
	for (size_t i = 0; i < count; i++) {
		start = clock_us();
		w->once(session, key);
		times[i] = clock_us() - start;
	}
	clock_report(times, count, began);
	free(times);
	return 0;
}
