/* Group D: the surface of the kernel. */
#include "probe.h"

#include <linux/if_alg.h>
#include <sys/socket.h>
#include <sys/syscall.h>

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
#if defined(__x86_64__)
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

static void d6(void)
{
	try_socket(AF_ALG, SOCK_SEQPACKET, 0);
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

const struct probe_case syscall_cases[] = {
    {"D2", d2}, {"D3", d3}, {"D4", d4}, {"D5", d5}, {"D6", d6}, {"D7", d7}, {"D8", d8}, {"D9", d9}, {NULL, NULL},
};
