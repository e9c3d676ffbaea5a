/*
 * SoftHSM as a token of 5 ms a signature, one after the other whoever asks, as a smartcard is. SLOW_TOKEN=file is what its users in
 * different processes queue at.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <p11-kit/pkcs11.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>

#define SIGNATURE_NS 5000000

static CK_FUNCTION_LIST list, *real;
static int token = -1;

static CK_RV sign(CK_SESSION_HANDLE session, unsigned char *data, unsigned long data_len, unsigned char *signature, unsigned long *len)
{
	struct timespec until;
	CK_RV rv;

	if (!signature)
		return real->C_Sign(session, data, data_len, signature, len);
	flock(token, LOCK_EX);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += SIGNATURE_NS;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	rv = real->C_Sign(session, data, data_len, signature, len);
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
	flock(token, LOCK_UN);
	return rv;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **ret)
{
	void *module = dlopen("/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW);
	CK_RV (*get)(CK_FUNCTION_LIST **) = module ? (CK_RV (*)(CK_FUNCTION_LIST **))dlsym(module, "C_GetFunctionList") : NULL;
	const char *path = getenv("SLOW_TOKEN");

	token = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	if (token < 0 || !get || get(&real) != CKR_OK)
		return CKR_GENERAL_ERROR;
	list = *real;
	list.C_Sign = sign;
	*ret = &list;
	return CKR_OK;
}
