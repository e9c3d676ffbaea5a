#include "broker/sandbox.h"

#include "common/cleanup.h"
#include "common/err.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Debian 12's header knows Landlock ABI 2; these came with ABI 3, 4, 5 and 6. */
#define FS_TRUNCATE (1ull << 14)
#define FS_IOCTL_DEV (1ull << 15)
#define NET_BIND_TCP (1ull << 0)
#define SCOPE_ABSTRACT_UNIX_SOCKET (1ull << 0)
#define SCOPE_SIGNAL (1ull << 1)

struct ruleset_attr {
	uint64_t handled_access_fs, handled_access_net, scoped;
};

static const uint64_t fs_read = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_EXECUTE;
static const uint64_t fs_all_abi2 = (LANDLOCK_ACCESS_FS_REFER << 1) - 1;
/* what makes sense on a file that is no directory */
static const uint64_t fs_file =
	LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE | FS_IOCTL_DEV;

static int add_path(int ruleset, const struct sandbox_path *path, uint64_t handled, struct err *err)
{
	struct landlock_path_beneath_attr rule = {0};
	CLEANUP(cleanup_close) int fd = open(path->path, O_PATH | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return 0; /* absent: nothing to allow */
	if (fstat(fd, &st) < 0)
		return err_errno(err, errno, "sandbox: %.200s", path->path);
	rule.parent_fd = fd;
	rule.allowed_access = handled & (path->access == SANDBOX_WRITE ? handled : path->access == SANDBOX_RMDIR ? LANDLOCK_ACCESS_FS_REMOVE_DIR : fs_read);
	if (!S_ISDIR(st.st_mode))
		rule.allowed_access &= fs_file;
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		return err_errno(err, errno, "sandbox: %.200s", path->path);
	return 0;
}

int sandbox_files(const struct sandbox_path *paths, size_t n, int *ret_level, struct err *err)
{
	struct ruleset_attr attr = {.handled_access_fs = fs_all_abi2};
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	CLEANUP(cleanup_close) int fd = -1;
	size_t size = sizeof(attr.handled_access_fs);
	int r;

	*ret_level = 0;
#ifdef COTTER_SANITIZE /* the leak checker attaches to us at the end */
	abi = 0;
#endif
	if (abi < 2)
		return 0;
	if (abi >= 3)
		attr.handled_access_fs |= FS_TRUNCATE;
	if (abi >= 5)
		attr.handled_access_fs |= FS_IOCTL_DEV;
	if (abi >= 4) {
		attr.handled_access_net = NET_BIND_TCP;
		size += sizeof(attr.handled_access_net);
	}
	if (abi >= 6) {
		attr.scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
		size += sizeof(attr.scoped);
	}
	fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
	if (fd < 0)
		return err_errno(err, errno, "sandbox: Landlock");
	for (size_t i = 0; i < n; i++) {
		r = add_path(fd, &paths[i], attr.handled_access_fs, err);
		if (r < 0)
			return r;
	}
	if (syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		return err_errno(err, errno, "sandbox: Landlock");
	*ret_level = (int)abi;
	return 0;
}

bool sandbox_can_scope(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 6;
}

int sandbox_scope(struct err *err)
{
	const struct ruleset_attr attr = {.scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL};
	CLEANUP(cleanup_close) int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);

	if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		return err_errno(err, errno, "the job's Landlock domain");
	return 0;
}

int sandbox_no_typing(struct err *err)
{
	static const uint32_t requests[] = {TIOCSTI, TIOCLINUX};
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	int r = ctx ? 0 : -ENOMEM;

	/* a 32-bit program is a job's good right, and no way around */
	if (r == 0)
		r = seccomp_arch_add(ctx, SCMP_ARCH_X86);
	if (r == 0)
		r = seccomp_arch_add(ctx, SCMP_ARCH_X32);
	/* the kernel looks at the lower half alone */
	for (size_t i = 0; r == 0 && i < sizeof(requests) / sizeof(requests[0]); i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffff, requests[i]));
	if (r == 0)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r == 0 ? 0 : err_errno(err, -r, "the job's terminal cannot be protected");
}

#ifndef COTTER_SANITIZE

static int add_calls(scmp_filter_ctx ctx, uint32_t action, const char *const *names, size_t n, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		int nr = seccomp_syscall_resolve_name(names[i]);
		int r = nr == __NR_SCMP_ERROR ? 0 : seccomp_rule_add(ctx, action, nr, 0);

		if (r < 0)
			return err_errno(err, -r, "sandbox: seccomp rule for %s", names[i]);
	}
	return 0;
}

static const char *const deadly[] = {
	"execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "init_module", "finit_module", "kexec_load",
	"bpf", "mount", "pivot_root", "setns", "unshare", "userfaultfd", "perf_event_open", "add_key", "keyctl", "request_key",
};

static const char *const broker_calls[] = {
	"read", "write", "readv", "writev", "pread64", "pwrite64", "recvmsg", "recvfrom", "sendmsg", "sendto", "accept4",
	"close", "fstat", "newfstatat", "stat", "lstat", "statx", "openat", "open", "lseek", "fcntl", "ftruncate", "fallocate",
	"fdatasync", "fsync", "unlink", "unlinkat", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "access", "faccessat",
	"faccessat2", "getdents64", "epoll_wait", "epoll_pwait", "epoll_ctl", "poll", "ppoll", "getsockopt", "setsockopt",
	"getsockname", "getpeername", "ioctl", "mmap", "munmap", "mremap", "mprotect", "madvise", "brk", "futex", "futex_waitv",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "clock_gettime", "clock_nanosleep", "nanosleep",
	"gettimeofday", "time", "getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getrandom", "exit", "exit_group",
	"sysinfo", "uname", "getrusage", "sched_yield", "sched_getaffinity", "restart_syscall", "tgkill",
	"fchmod", "fchown", "chmod", "utimensat", "eventfd2", "timerfd_settime", "membarrier", "rseq", "set_robust_list",
	"prlimit64", "inotify_add_watch", "inotify_rm_watch", "pidfd_open", "getcwd", "readlink", "readlinkat", "fadvise64", "shutdown", "umask", "statfs", "fstatfs",
};

static const char *const keyd_refused[] = {
	"reboot", "swapon", "swapoff", "settimeofday", "clock_settime", "chroot", "open_by_handle_at", "kill", "pidfd_getfd",
	"personality", "acct", "quotactl", "delete_module", "kexec_file_load", "umount2", "pidfd_send_signal",
};

static int load(uint32_t fallback, const char *const *names, size_t n, uint32_t action, struct err *err)
{
	scmp_filter_ctx ctx = seccomp_init(fallback);
	int r;

	if (!ctx)
		return err_set(err, ERR_FAILED, "sandbox: seccomp does not start");
	r = add_calls(ctx, action, names, n, err);
	if (r == 0)
		r = add_calls(ctx, SCMP_ACT_KILL_PROCESS, deadly, sizeof(deadly) / sizeof(deadly[0]), err);
	if (r == 0) {
		seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
		/* every thread, or one of them would be the way out */
		seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
		r = seccomp_load(ctx);
		if (r < 0)
			r = err_errno(err, -r, "sandbox: seccomp");
	}
	seccomp_release(ctx);
	return r;
}

int sandbox_broker_syscalls(struct err *err)
{
	return load(SCMP_ACT_ERRNO(EPERM), broker_calls, sizeof(broker_calls) / sizeof(broker_calls[0]), SCMP_ACT_ALLOW, err);
}

int sandbox_keyd_syscalls(struct err *err)
{
	return load(SCMP_ACT_ALLOW, keyd_refused, sizeof(keyd_refused) / sizeof(keyd_refused[0]), SCMP_ACT_ERRNO(EPERM), err);
}

#else /* the sanitizers' runtimes need calls of their own */

int sandbox_broker_syscalls(struct err *err)
{
	(void)err;
	return 0;
}

int sandbox_keyd_syscalls(struct err *err)
{
	(void)err;
	return 0;
}

#endif
