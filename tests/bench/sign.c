/*
 * Signs over and over through a PKCS#11 module: MODULE COUNT ec|rsa [PIN]. Waits for a line on standard input when it is ready, so that
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

static CK_OBJECT_HANDLE find(CK_SLOT_ID slot, CK_KEY_TYPE type, const char *pin, CK_SESSION_HANDLE *session)
{
	CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
	CK_BBOOL signs = CK_FALSE;
	CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof(class)}, {CKA_KEY_TYPE, &type, sizeof(type)}}, sign = {CKA_SIGN, &signs, sizeof(signs)};
	CK_OBJECT_HANDLE handles[8], found = 0;
	CK_ULONG n = 0;

	if (module->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, session) != CKR_OK)
		return 0;
	module->C_Login(*session, CKU_USER, (CK_UTF8CHAR *)(size_t)pin, pin ? strlen(pin) : 0);
	check(module->C_FindObjectsInit(*session, template, 2), "C_FindObjectsInit");
	check(module->C_FindObjects(*session, handles, 8, &n), "C_FindObjects");
	check(module->C_FindObjectsFinal(*session), "C_FindObjectsFinal");
	for (CK_ULONG i = 0; i < n && !found; i++)
		if (module->C_GetAttributeValue(*session, handles[i], &sign, 1) == CKR_OK && signs)
			found = handles[i];
	return found;
}

int main(int argc, char **argv)
{
	CK_RV (*get)(CK_FUNCTION_LIST **list);
	CK_SLOT_ID slots[16];
	CK_ULONG n = 16, len, data_len;
	CK_SESSION_HANDLE session = 0;
	CK_OBJECT_HANDLE key = 0;
	/* a DigestInfo of SHA-256 (RFC 8017, section 9.2), of which ECDSA signs what is behind the 19 bytes */
	CK_BYTE info[] = "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
			 "0123456789abcdef0123456789abcdef", signature[512], *data;
	size_t count = argc > 3 ? strtoul(argv[2], NULL, 10) : 0;
	double *times = calloc(count + 1, sizeof(*times)), began, start;
	void *library = count ? dlopen(argv[1], RTLD_NOW) : NULL;
	CK_MECHANISM mechanism = {CKM_ECDSA, NULL, 0};
	bool ec;

	if (!library || !times) {
		fprintf(stderr, "usage: MODULE COUNT ec|rsa [PIN]: %s\n", dlerror());
		return 1;
	}
	ec = strcmp(argv[3], "ec") == 0;
	data = ec ? info + 19 : info;
	data_len = ec ? 32 : 51;
	mechanism.mechanism = ec ? CKM_ECDSA : CKM_RSA_PKCS;
	*(void **)&get = dlsym(library, "C_GetFunctionList");
	check(get(&module), "C_GetFunctionList");
	check(module->C_Initialize(NULL), "C_Initialize");
	check(module->C_GetSlotList(CK_TRUE, slots, &n), "C_GetSlotList");
	for (CK_ULONG i = 0; i < n && !key; i++)
		key = find(slots[i], ec ? CKK_EC : CKK_RSA, argc > 4 ? argv[4] : NULL, &session);
	if (!key)
		return 2;
	began = clock_start();
	for (size_t i = 0; i < count; i++) {
		start = clock_us();
		len = sizeof(signature);
		check(module->C_SignInit(session, &mechanism, key), "C_SignInit");
		check(module->C_Sign(session, data, data_len, signature, &len), "C_Sign");
		times[i] = clock_us() - start;
	}
	clock_report(times, count, began);
	free(times);
	return 0;
}
