/*
 * SoftHSM as a token of 5 ms (or SLOW_TOKEN_US) a signature or key agreement, one after the other whoever asks, as a smartcard is.
 * SLOW_TOKEN=file is what its users in different processes queue at.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>

static CK_FUNCTION_LIST list, *real;
static int token = -1;
static long operation_ns = 5000000;
static pthread_mutex_t thread = PTHREAD_MUTEX_INITIALIZER; /* the same in one process */

static struct timespec begin(void)
{
	struct timespec until;

	pthread_mutex_lock(&thread);
	flock(token, LOCK_EX);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += operation_ns;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	return until;
}

static CK_RV end(const struct timespec *until, CK_RV rv)
{
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, until, NULL);
	flock(token, LOCK_UN);
	pthread_mutex_unlock(&thread);
	return rv;
}

static CK_RV sign(CK_SESSION_HANDLE session, unsigned char *data, unsigned long data_len, unsigned char *signature, unsigned long *len)
{
	struct timespec until;

	if (!signature)
		return real->C_Sign(session, data, data_len, signature, len);
	until = begin();
	return end(&until, real->C_Sign(session, data, data_len, signature, len));
}

static CK_RV derive(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key, CK_ATTRIBUTE *template, CK_ULONG n, CK_OBJECT_HANDLE *ret)
{
	struct timespec until = begin();

	return end(&until, real->C_DeriveKey(session, mechanism, key, template, n, ret));
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **ret)
{
	void *module = dlopen("/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW);
	CK_RV (*get)(CK_FUNCTION_LIST **) = module ? (CK_RV (*)(CK_FUNCTION_LIST **))dlsym(module, "C_GetFunctionList") : NULL;
	const char *path = getenv("SLOW_TOKEN"), *us = getenv("SLOW_TOKEN_US");

	if (us)
		operation_ns = 1000 * strtol(us, NULL, 10);
	token = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	if (token < 0 || !get || get(&real) != CKR_OK)
		return CKR_GENERAL_ERROR;
	list = *real;
	list.C_Sign = sign;
	list.C_DeriveKey = derive;
	*ret = &list;
	return CKR_OK;
}
