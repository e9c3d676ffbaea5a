/*
 * A PKCS#11 module that is SoftHSM but for what a test asks: it counts logins, and fails one derivation or signature with a given value.
 * FAULT_LOG=file gets a line for each C_Login; FAULT_ONCE=file holds a CK_RV in hex, used once and removed (dead: it crashes, beef: it
 * hangs), and behind it how often in place of once. While the file FAULT_GATE is there, each C_Sign adds a byte to it and waits until it is gone. While FAULT_SESSIONS is there, the token has room for one session.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static CK_FUNCTION_LIST list, *real;

static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE user, unsigned char *pin, unsigned long pin_len)
{
	const char *path = getenv("FAULT_LOG");
	FILE *f = path ? fopen(path, "ae") : NULL;
	const char *crash = getenv("FAULT_LOGIN");
	CK_RV rv = real->C_Login(session, user, pin, pin_len);

	if (f) {
		fprintf(f, "login %lx\n", rv);
		fclose(f);
	}
	if (crash && access(crash, F_OK) == 0)
		abort(); /* did the token count that try? nobody knows */
	return rv;
}

static int n_open;

static CK_RV open_session(CK_SLOT_ID slot, CK_FLAGS flags, void *application, CK_NOTIFY notify, CK_SESSION_HANDLE *ret)
{
	const char *path = getenv("FAULT_SESSIONS");
	CK_RV rv = path && access(path, F_OK) == 0 && n_open > 0 ? CKR_SESSION_COUNT : real->C_OpenSession(slot, flags, application, notify, ret);

	__atomic_add_fetch(&n_open, rv == CKR_OK, __ATOMIC_SEQ_CST);
	return rv;
}

static CK_RV close_session(CK_SESSION_HANDLE session)
{
	CK_RV rv = real->C_CloseSession(session);

	__atomic_sub_fetch(&n_open, rv == CKR_OK, __ATOMIC_SEQ_CST);
	return rv;
}

/* CKR_OK: nothing is to go wrong. */
static CK_RV fault(CK_SESSION_HANDLE session)
{
	const char *path = getenv("FAULT_ONCE");
	FILE *f = path ? fopen(path, "r+e") : NULL;
	CK_RV rv = CKR_OK;
	int times = 1;

	if (f) {
		if (fscanf(f, "%lx %d", &rv, &times) < 1)
			rv = CKR_OK;
		rewind(f);
		if (times > 1)
			fprintf(f, "%lx %d", rv, times - 1);
		else
			unlink(path);
		fclose(f);
	}
	if (rv == 0xdead)
		abort(); /* a vendor's module that crashes */
	while (rv == 0xbeef)
		pause();
	if (rv == CKR_USER_NOT_LOGGED_IN)
		real->C_Logout(session);
	if (rv == CKR_SESSION_HANDLE_INVALID || rv == CKR_DEVICE_REMOVED)
		close_session(session);
	return rv;
}

static CK_RV derive(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key, CK_ATTRIBUTE *template, unsigned long n,
		    CK_OBJECT_HANDLE *ret)
{
	CK_RV rv = fault(session);

	return rv == CKR_OK ? real->C_DeriveKey(session, mechanism, key, template, n, ret) : rv;
}

static CK_RV sign(CK_SESSION_HANDLE session, unsigned char *data, unsigned long data_len, unsigned char *signature, unsigned long *len)
{
	const char *gate = getenv("FAULT_GATE");
	int fd = gate ? open(gate, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
	CK_RV rv = fault(session);

	if (fd >= 0 && write(fd, "x", 1) == 1)
		while (access(gate, F_OK) == 0)
			usleep(10000);
	if (fd >= 0)
		close(fd);
	return rv == CKR_OK ? real->C_Sign(session, data, data_len, signature, len) : rv;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **ret)
{
	void *module = dlopen("/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW);
	CK_RV (*get)(CK_FUNCTION_LIST **) = module ? (CK_RV (*)(CK_FUNCTION_LIST **))dlsym(module, "C_GetFunctionList") : NULL;

	if (!get || get(&real) != CKR_OK)
		return CKR_GENERAL_ERROR;
	list = *real;
	list.C_Login = login;
	list.C_DeriveKey = derive;
	list.C_Sign = sign;
	list.C_OpenSession = open_session;
	list.C_CloseSession = close_session;
	*ret = &list;
	return CKR_OK;
}
