/* See confine.h. Sources: landlock(7), seccomp(2), pledge(2) for the idea of groups. */
#include "base/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

int confine_user(uid_t uid, gid_t gid, struct err *err)
{
	uid_t r, e, s;

	if (geteuid() != 0 || (uid == 0 && gid == 0))
		return 0;
	if (setgroups(0, NULL) < 0)
		return err_set(err, errno, "leave all groups");
	if (setresgid(gid, gid, gid) < 0)
		return err_set(err, errno, "take gid %u", gid);
	if (setresuid(uid, uid, uid) < 0)
		return err_set(err, errno, "take uid %u", uid);
	if (getresuid(&r, &e, &s) < 0 || r != uid || e != uid || s != uid || (uid != 0 && setuid(0) == 0))
		return err_set(err, EPERM, "uid %u can be left again", uid);
	return 0;
}

/* Rights by the Landlock ABI that introduced them; an older kernel ignores what it does not know. */
#define FS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_WRITE                                                                                                       \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |              \
	 LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |                    \
	 LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM)
#define FS_ALL_V1                                                                                                      \
	(FS_READ | FS_WRITE | LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK)
#ifndef LANDLOCK_ACCESS_FS_REFER
#define LANDLOCK_ACCESS_FS_REFER (1ULL << 13) /* ABI 2 */
#endif
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14) /* ABI 3 */
#endif
/* What applies to a file, as opposed to a directory. */
#define FS_ON_FILE                                                                                                     \
	(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_EXECUTE |                   \
	 LANDLOCK_ACCESS_FS_TRUNCATE)

static int allow_path(int ruleset, const struct confine_path *p, __u64 handled, struct err *err)
{
	cleanup_close int fd = open(p->path, O_PATH | O_CLOEXEC);
	struct stat st;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, errno, "open `%s`", p->path);
	__u64 access = FS_READ;
	if (p->write)
		access |= FS_WRITE | LANDLOCK_ACCESS_FS_REFER | LANDLOCK_ACCESS_FS_TRUNCATE;
	if (p->exec)
		access |= LANDLOCK_ACCESS_FS_EXECUTE;
	if (!S_ISDIR(st.st_mode))
		access &= FS_ON_FILE;
	struct landlock_path_beneath_attr rule = {.allowed_access = access & handled, .parent_fd = fd};
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		return err_set(err, errno, "landlock rule for `%s`", p->path);
	return 0;
}

#ifdef __SANITIZE_ADDRESS__
/* LeakSanitizer stops the threads of its process by way of /proc; a role in a chroot has none and is left in peace. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return access("/proc/self/task", R_OK) < 0;
}
#endif

int confine_files(const struct confine_path *paths, struct err *err)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(err, errno, "no_new_privs");
	if (abi < 1) {
		log_debug("this kernel has no Landlock: the file system is confined by user and mode only");
		return 0;
	}
	struct landlock_ruleset_attr attr = {.handled_access_fs = FS_ALL_V1};
	if (abi >= 2)
		attr.handled_access_fs |= LANDLOCK_ACCESS_FS_REFER;
	if (abi >= 3)
		attr.handled_access_fs |= LANDLOCK_ACCESS_FS_TRUNCATE;
	cleanup_close int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
	if (ruleset < 0)
		return err_set(err, errno, "landlock ruleset");
#ifdef __SANITIZE_ADDRESS__
	if (allow_path(ruleset, &(struct confine_path){.path = "/proc"}, attr.handled_access_fs, err) < 0)
		return -1;
#endif
	for (; paths->path; paths++)
		if (allow_path(ruleset, paths, attr.handled_access_fs, err) < 0)
			return -1;
	if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		return err_set(err, errno, "landlock restrict");
	return 0;
}

#define NAMESPACES                                                                                                     \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

static const char *const calls_base[] = {
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "preadv",
    "pwritev",
    "close",
    "close_range",
    "lseek",
    "fstat",
    "newfstatat",
    "statx",
    "stat",
    "lstat",
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "eventfd2",
    "timerfd_create",
    "timerfd_settime",
    "signalfd4",
    "pipe2",
    "pipe",
    "dup",
    "dup2",
    "dup3",
    "fcntl",
    "flock",
    "ioctl",
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "madvise",
    "brk",
    "msync",
    "mincore",
    "mlock",
    "munlock",
    "futex",
    "set_robust_list",
    "get_robust_list",
    "rseq",
    "membarrier",
    "sched_yield",
    "sched_getaffinity",
    "getpid",
    "gettid",
    "getppid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getresuid",
    "getresgid",
    "getgroups",
    "getpgrp",
    "getpgid",
    "getsid",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigtimedwait",
    "sigaltstack",
    "kill",
    "tgkill",
    "clock_gettime",
    "clock_getres",
    "clock_nanosleep",
    "nanosleep",
    "gettimeofday",
    "time",
    "getrandom",
    "uname",
    "sysinfo",
    "getrusage",
    "getrlimit",
    "setrlimit",
    "prlimit64",
    "times",
    "umask",
    "exit",
    "exit_group",
    "restart_syscall",
    "getcwd",
    "set_tid_address",
    "arch_prctl",
    "prctl",
    "recvmsg",
    "recvfrom",
    "sendmsg",
    "sendto",
    "getsockopt",
    "setsockopt",
    "getsockname",
    "getpeername",
    "shutdown",
    "socketpair",
    "wait4",
    "waitid",
    "sendfile",
    "seccomp",
    "landlock_create_ruleset",
    "landlock_add_rule",
    "landlock_restrict_self",
    "capget",
    "capset",
    "sigreturn",
    "setitimer",
    "getitimer",
    "alarm",
    "pause",
    "memfd_create",
    "fadvise64",
    "pidfd_open",
    "pidfd_send_signal",
#ifdef __SANITIZE_ADDRESS__
    "ptrace",
    "process_vm_readv",
    "personality",
    "openat",
    "open",
    "readlink",
#endif
};
static const char *const calls_files[] = {
    "open",
    "openat",
    "openat2",
    "creat",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "getdents64",
    "getdents",
    "mkdir",
    "mkdirat",
    "rmdir",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "chmod",
    "fchmod",
    "fchmodat",
    "chown",
    "fchown",
    "fchownat",
    "lchown",
    "utimensat",
    "utime",
    "utimes",
    "futimesat",
    "truncate",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "syncfs",
    "statfs",
    "fstatfs",
    "getxattr",
    "lgetxattr",
    "fgetxattr",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "listxattr",
    "flistxattr",
    "removexattr",
    "fremovexattr",
    "chdir",
    "fchdir",
    "inotify_init1",
    "inotify_add_watch",
    "inotify_rm_watch",
    "copy_file_range",
    "splice",
    "tee",
};
/* splice: bodies through the proxy. It can reach neither AF_ALG (allow_socket) nor, without PROMISE_FILES, a file, which are
 * what splice was abused with (CVE-2022-0847, CVE-2026-31431). */
static const char *const calls_net[] = {"connect", "accept",   "accept4",  "bind",
					"listen",  "recvmmsg", "sendmmsg", "splice"};
static const char *const calls_exec[] = {"execve", "execveat", "fork", "vfork", "setsid", "setpgid"};

static int allow_calls(scmp_filter_ctx ctx, const char *const *names, size_t n, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		int nr = seccomp_syscall_resolve_name(names[i]);
		if (nr < 0)
			continue; /* does not exist on this architecture or in this libseccomp */
		int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0);
		if (r < 0 && r != -EEXIST)
			return err_set(err, -r, "seccomp rule for %s", names[i]);
	}
	return 0;
}
#define ALLOW(list) allow_calls(ctx, list, sizeof(list) / sizeof *(list), err)

static int allow_socket(scmp_filter_ctx ctx, int family, struct err *err)
{
	int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0_32(SCMP_CMP_EQ, (unsigned)family));
	return r < 0 ? err_set(err, -r, "seccomp rule for socket family %d", family) : 0;
}

/* Threads and children, but no new namespaces: in one's own user namespace one has every capability, and with it the
 * parts of the kernel that only those reach. clone3 hides its flags in memory: libc falls back on ENOSYS. */
static int allow_clone(scmp_filter_ctx ctx, struct err *err)
{
	int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, NAMESPACES, 0));
	return r < 0 ? err_set(err, -r, "seccomp rule for clone") : 0;
}

/* Its own only: background work makes itself nice. */
static int allow_own_priority(scmp_filter_ctx ctx, struct err *err)
{
	int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(setpriority), 2, SCMP_A0_32(SCMP_CMP_EQ, PRIO_PROCESS),
				 SCMP_A1_32(SCMP_CMP_EQ, 0));
	return r < 0 ? err_set(err, -r, "seccomp rule for setpriority") : 0;
}

static int build_filter(scmp_filter_ctx ctx, unsigned promises, struct err *err)
{
	if (ALLOW(calls_base) < 0 || allow_clone(ctx, err) < 0)
		return -1;
	if ((promises & (PROMISE_FILES | PROMISE_EXEC)) && ALLOW(calls_files) < 0)
		return -1;
	if ((promises & (PROMISE_INET | PROMISE_UNIX)) && ALLOW(calls_net) < 0)
		return -1;
	if ((promises & PROMISE_EXEC) && ALLOW(calls_exec) < 0)
		return -1;
	if ((promises & PROMISE_EXEC) && allow_own_priority(ctx, err) < 0)
		return -1;
	if ((promises & PROMISE_UNIX) && allow_socket(ctx, AF_UNIX, err) < 0)
		return -1;
	if ((promises & PROMISE_INET) && (allow_socket(ctx, AF_INET, err) < 0 || allow_socket(ctx, AF_INET6, err) < 0))
		return -1;
	return 0;
}

/* What libseccomp does not know must look like an old kernel, not like a refusal, or libc's fall-backs break. */
static int unknown_is_enosys(scmp_filter_ctx ctx, struct err *err)
{
	static const char *const newer[] = {"io_uring_setup", "io_uring_enter", "io_uring_register",
					    "clone3",	      "openat2",	"faccessat2",
					    "epoll_pwait2",   "futex_waitv",	"rseq"};

	for (size_t i = 0; i < sizeof newer / sizeof *newer; i++) {
		int nr = seccomp_syscall_resolve_name(newer[i]);
		int r = nr < 0 ? 0 : seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), nr, 0);
		if (r < 0 && r != -EEXIST && r != -EACCES)
			return err_set(err, -r, "seccomp rule for %s", newer[i]);
	}
	return 0;
}

static int drop_capabilities(unsigned promises, struct err *err)
{
	static const cap_value_t net_admin[] = {CAP_NET_ADMIN};
	cap_t keep = cap_init();

	for (int cap = 0; cap <= 63; cap++)
		prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); /* fails without CAP_SETPCAP: nothing to drop then */
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (keep && (promises & PROMISE_NET_ADMIN)) {
		cap_set_flag(keep, CAP_PERMITTED, 1, net_admin, CAP_SET);
		cap_set_flag(keep, CAP_EFFECTIVE, 1, net_admin, CAP_SET);
	}
	int r = keep ? cap_set_proc(keep) : -1;
	int e = errno;
	cap_free(keep);
	return r < 0 ? err_set(err, e, "drop capabilities") : 0;
}

int confine_syscalls(unsigned promises, struct err *err)
{
	if (drop_capabilities(promises, err) < 0)
		return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(err, errno, "no_new_privs");
#ifndef __SANITIZE_ADDRESS__ /* LeakSanitizer traces its own process */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_set(err, errno, "not dumpable");
#endif
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	if (!ctx)
		return err_set(err, ENOMEM, "seccomp filter");
	int r = build_filter(ctx, promises, err);
	if (r == 0)
		r = unknown_is_enosys(ctx, err);
	if (r == 0) {
		int e = seccomp_load(ctx);
		if (e < 0)
			r = err_set(err, -e, "load seccomp filter");
	}
	seccomp_release(ctx);
	return r;
}
