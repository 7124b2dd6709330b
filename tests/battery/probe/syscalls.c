/* Group D: the surface of the kernel. */
#include "probe.h"

#include <linux/filter.h>
#include <linux/if_alg.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

/* One call with all arguments of no use, in a child of its own; how it ended. Some of them fork, wait, or end. */
static void one_call(long nr, char *out, size_t size)
{
	struct {
		int code, forked;
	} said = {-1, 0};
	int pipefd[2], status;

	if (pipe(pipefd) < 0)
		exit(99);
	pid_t pid = fork();
	if (pid == 0) {
		pid_t me = getpid();

		alarm(2);
		errno = 0;
		long rc = syscall(nr, -1L, -1L, -1L, -1L, -1L, -1L);
		said.code = rc >= 0 || rc < -4095 ? 0 : errno;
		if (getpid() != me)
			_exit(0);
		_exit(write(pipefd[1], &said, sizeof said) == sizeof said ? 0 : 1);
	}
	close(pipefd[1]);
	waitpid(pid, &status, 0);
	bool told = read(pipefd[0], &said, sizeof said) == sizeof said;
	close(pipefd[0]);
	snprintf(out, size, "%s",
		 told && said.code == ENOSYS  ? "ENOSYS"
		 : told && said.code == EPERM ? "EPERM"
					      : "reachable");
}

/* D1: what there is at all. Outside only as nobody: the answers alone count. */
static void d1(void)
{
	char answer[32], name[16];

	if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0)
		exit(99);
	for (long nr = 0; nr <= 600; nr++) {
		one_call(nr, answer, sizeof answer);
		snprintf(name, sizeof name, "%ld", nr);
		fact(name, "%s", answer);
	}
}

static void d2(void)
{
#if defined(__x86_64__)
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
	errno = (int)-r;
	say((int)r > 0, "getpid through int 0x80");
	errno = 0;
	say(syscall(0x40000000L | SYS_getpid) > 0, "getpid as x32");
#endif
}

static void d3(void)
{
	call("open_tree", SYS_open_tree, -1, 0, 1, 0, 0);
	call("move_mount", SYS_move_mount, -1, 0, -1, 0, 0);
	call("fsopen", SYS_fsopen, 0, 0, 0, 0, 0);
	call("fsconfig", SYS_fsconfig, -1, 99, 0, 0, 0);
	call("fsmount", SYS_fsmount, -1, 0, 0, 0, 0);
	call("fspick", SYS_fspick, -1, 0, 0, 0, 0);
	call("mount_setattr", SYS_mount_setattr, -1, 0, 0, 0, 32);
	call("statmount", 457, 0, 0, 0, 0, 0);
	call("listmount", 458, 0, 0, 0, 0, 0);
	call("open_tree_attr", 467, -1, 0, 1, 0, 0);
}

static void d4(void)
{
	call("io_uring_setup", SYS_io_uring_setup, 1, 0, 0, 0, 0);
	call("io_uring_enter", SYS_io_uring_enter, -1, 0, 0, 0, 0);
	call("io_uring_register", SYS_io_uring_register, -1, 0, 0, 0, 0);
	bool ring = false;
	for (int fd = 0; fd < 64; fd++) {
		char path[32], to[64] = "";

		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		if (readlink(path, to, sizeof to - 1) > 0)
			ring |= strstr(to, "io_uring") != NULL;
	}
	errno = EBADF;
	say(ring, "a ring of the caller");
}

static void d5(void)
{
	call("bpf", SYS_bpf, 9999, 0, 0, 0, 0);
	call("perf_event_open", SYS_perf_event_open, 0, 0, -1, -1, 0);
	call("userfaultfd", SYS_userfaultfd, -1, 0, 0, 0, 0);
	call("keyctl", SYS_keyctl, 0, -3, 0, 0, 0);
	call("add_key", SYS_add_key, 0, 0, 0, 0, 0);
	call("request_key", SYS_request_key, 0, 0, 0, 0, 0);
	call("kcmp", SYS_kcmp, getpid(), getpid(), 99, 0, 0);
	call("pidfd_getfd", SYS_pidfd_getfd, -1, 0, 0, 0, 0);
	call("process_vm_readv", SYS_process_vm_readv, getpid(), 0, 0, 0, 0);
	call("process_vm_writev", SYS_process_vm_writev, getpid(), 0, 0, 0, 0);
	call("process_madvise", SYS_process_madvise, -1, 0, 0, 21, 0);
	call("ptrace", SYS_ptrace, 0x4206 /* SEIZE */, 999999999, 0, 0, 0);
	call("kexec_load", SYS_kexec_load, 0, 0, 0, 0xffffff, 0);
	call("init_module", SYS_init_module, 0, 0, 0, 0, 0);
	call("finit_module", SYS_finit_module, -1, 0, 0, 0, 0);
	call("quotactl", SYS_quotactl, -1, 0, 0, 0, 0);
	call("acct", SYS_acct, 1, 0, 0, 0, 0);
	call("swapon", SYS_swapon, 1, 0, 0, 0, 0);
	call("reboot", SYS_reboot, 0, 0, 0, 0, 0);
	call("clock_settime", SYS_clock_settime, 999, 0, 0, 0, 0);
	call("settimeofday", SYS_settimeofday, 1, 0, 0, 0, 0);
	call("open_by_handle_at", SYS_open_by_handle_at, -1, 0, 0, 0, 0);
	call("name_to_handle_at", SYS_name_to_handle_at, -1, 0, 0, 0, 0);
	call("vmsplice", SYS_vmsplice, -1, 0, 0, 0, 0);
	call("fanotify_init", SYS_fanotify_init, 0xffffff, 0, 0, 0, 0);
	call("pivot_root", SYS_pivot_root, 0, 0, 0, 0, 0);
	call("setns", SYS_setns, -1, 0, 0, 0, 0);
	call("sethostname", SYS_sethostname, 0, 9999, 0, 0, 0);
	call("delete_module", SYS_delete_module, 0, 0, 0, 0, 0);
	call("kexec_file_load", SYS_kexec_file_load, -1, -1, 0, 0, 0xffffff);
	call("quotactl_fd", SYS_quotactl_fd, -1, 0, 0, 0, 0);
	call("userfaultfd of user mode", SYS_userfaultfd, 1 | 0x40000000, 0, 0, 0, 0);
	call("memfd_secret", 447, 0xffff, 0, 0, 0, 0);
	call("move_pages", SYS_move_pages, 0, 1, 0, 0, 0);
	call("swapoff", SYS_swapoff, 1, 0, 0, 0, 0);
	call("syslog", SYS_syslog, 10, 0, 0, 0, 0);
	say(open("/dev/userfaultfd", O_RDWR) >= 0, "/dev/userfaultfd");
#if defined(__x86_64__)
	call("ioperm", SYS_ioperm, 99999999, 1, 1, 0, 0);
	call("iopl", SYS_iopl, 99, 0, 0, 0, 0);
	call("modify_ldt", SYS_modify_ldt, 0, 0, 0, 0, 0);
#endif
}

static void try_socket(int family, int type, int protocol)
{
	char name[64];
	int fd = socket(family, type, protocol);

	snprintf(name, sizeof name, "socket family %d type %d protocol %d", family, type, protocol);
	say(fd >= 0, name);
	if (fd >= 0)
		close(fd);
}

static long bind_alg(long unused)
{
	struct sockaddr_alg a = {.salg_family = AF_ALG, .salg_type = "aead", .salg_name = "gcm(aes)"};
	int fd = socket(AF_ALG, SOCK_SEQPACKET, 0);

	return fd < 0 ? -1 : bind(fd, (struct sockaddr *)&a, sizeof a);
}

static void d6(void)
{
	try_socket(AF_ALG, SOCK_SEQPACKET, 0);
	in_child("bind an AEAD cipher", bind_alg, 0);
}

static void d7(void)
{
	static const int types[] = {SOCK_STREAM,    SOCK_DGRAM, SOCK_RAW,   SOCK_RDM,
				    SOCK_SEQPACKET, SOCK_DCCP,	SOCK_PACKET};

	for (int family = 0; family < 47; family++)
		for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
			bool stream = types[i] == SOCK_STREAM || types[i] == SOCK_DGRAM;

			if ((stream && (family == AF_INET || family == AF_INET6)) || family == AF_UNIX)
				continue; /* these are what an app is for */
			if (family == AF_NETLINK && (types[i] == SOCK_RAW || types[i] == SOCK_DGRAM))
				continue; /* route: D9 tries the others */
			try_socket(family, types[i], 0);
		}
}

static void d8(void)
{
	try_socket(AF_VSOCK, SOCK_STREAM, 0);
	try_socket(AF_VSOCK, SOCK_DGRAM, 0);
}

static void d9(void)
{
	for (int protocol = 1; protocol < 23; protocol++)
		try_socket(AF_NETLINK, SOCK_RAW, protocol);
}

/* `argument`: a file that may be read. Its pages go through pipes into a socket, and are written to in the pipe. */
static long gift(long unused)
{
	int fd = open(argument, O_RDONLY), pipefd[2];
	void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	struct iovec v = {page, 4096};

	return page == MAP_FAILED || pipe(pipefd) < 0 ? -1 : vmsplice(pipefd[1], &v, 1, SPLICE_F_GIFT);
}

static void d10(void)
{
	char before[4096], after[4096];
	int fd = open(argument, O_RDONLY), one[2], two[2];
	struct sockaddr_in to = {
	    .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int udp = socket(AF_INET, SOCK_DGRAM, 0);
	loff_t at = 0;

	in_child("vmsplice", gift, 0);
	if (fd < 0 || pipe(one) < 0 || pipe(two) < 0 || read(fd, before, sizeof before) != sizeof before)
		exit(99);
	/* a pipe whose slots were full once can be merged into: CVE-2022-0847 */
	for (int i = 0; i < 16; i++)
		if (write(one[1], before, 4096) != 4096)
			exit(99);
	for (int i = 0; i < 16; i++)
		if (read(one[0], after, 4096) != 4096)
			exit(99);
	fact("splice", "%zd", splice(fd, &at, one[1], NULL, 1, 0));
	fact("tee", "%zd", tee(one[0], two[1], 1, 0));
	if (write(one[1], "changed", 7) != 7 || write(two[1], "changed", 7) != 7)
		exit(99);
	if (connect(udp, (struct sockaddr *)&to, sizeof to) < 0)
		fact("connect", "%d", errno);
	fact("to a socket", "%zd", splice(one[0], NULL, udp, NULL, 8, 0));
	at = 0;
	fact("sendfile", "%zd", sendfile(udp, fd, &at, 4096));
	errno = EROFS;
	say(pread(fd, after, sizeof after, 0) == sizeof after && memcmp(before, after, sizeof after) != 0,
	    "another content in the page cache");
}

static struct sock_filter let_all[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
static struct sock_fprog all = {1, let_all};

static long with_own_filter(long flags)
{
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &all) < 0)
		return -1;
	return unshare(CLONE_NEWUTS);
}

static long listener(long unused)
{
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &all);
}

static void d11(void)
{
	in_child("unshare behind an own filter", with_own_filter, 0);
	in_child("unshare behind an own filter for all threads", with_own_filter, SECCOMP_FILTER_FLAG_TSYNC);
	in_child("listener for system calls", listener, 0);
}

static long persona(long what)
{
	return personality((unsigned long)what) < 0 ? -1 : 0;
}

static long arch(long code)
{
	/* no such address: an answer of the kernel's own is as good as success */
	long rc = syscall(SYS_arch_prctl, code, 1L);

	return rc < 0 && (errno == EPERM || errno == ENOSYS) ? -1 : 0;
}

static void d12(void)
{
	in_child("READ_IMPLIES_EXEC", persona, READ_IMPLIES_EXEC);
	in_child("ADDR_NO_RANDOMIZE", persona, ADDR_NO_RANDOMIZE);
	in_child("PER_LINUX32", persona, PER_LINUX32);
	in_child("ADDR_COMPAT_LAYOUT", persona, ADDR_COMPAT_LAYOUT);
	in_child("ARCH_SET_CPUID", arch, 0x1012);
	in_child("ARCH_MAP_VDSO_32", arch, 0x2002);
}

/* A program that is no file. It may run, and is as confined as its parent. */
static void fileless_child(void)
{
	char line[256];
	FILE *f = fopen("/proc/self/status", "r");
	int mode = 0;

	while (f && fgets(line, sizeof line, f))
		if (strncmp(line, "Seccomp:", 8) == 0)
			mode = atoi(line + 8);
	errno = EPERM;
	say(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0, "a fileless program without no_new_privs");
	say(mode != 2, "a fileless program without a filter");
	say(unshare(CLONE_NEWUTS) == 0, "unshare of a fileless program");
	say(open("/proc/1/mem", O_RDONLY) >= 0, "/proc/1/mem of a fileless program");
}

static void d13(void)
{
	int from = open("/proc/self/exe", O_RDONLY), fd = memfd_create("probe", 0);
	struct stat st;

	if (from < 0 || fd < 0 || fstat(from, &st) < 0)
		exit(99);
	for (off_t at = 0; at < st.st_size;)
		if (sendfile(fd, from, &at, (size_t)(st.st_size - at)) <= 0)
			exit(99);
	char *const argv[] = {"probe", "D13-child", NULL};
	fexecve(fd, argv, environ);
	fact("fileless", "refused");
	say(false, "a fileless program without no_new_privs");
}

const struct probe_case syscall_cases[] = {
    {"D1", d1},	  {"D2", d2}, {"D3", d3},   {"D4", d4},	  {"D5", d5},	{"D6", d6},   {"D7", d7},
    {"D8", d8},	  {"D9", d9}, {"D10", d10}, {"D11", d11}, {"D12", d12}, {"D13", d13}, {"D13-child", fileless_child},
    {NULL, NULL},
};
