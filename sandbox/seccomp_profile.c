/* The system calls that an app or a build may make, by what they are for. Data only; seccomp.c compiles it.
 * Starting point: the names that Docker's default profile allows without a capability, minus what is a way out or has
 * no use here (name_to_handle_at, vmsplice, ptrace, process_vm_*, io_uring, fanotify, userfaultfd, NUMA policy, ...),
 * and with arguments checked where a call is a family of calls. */
#include "sandbox/seccomp_profile.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

// clang-format off
const char *const seccomp_allowed[] = {
    /* processes, threads, signals */
    "fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid", "getpid", "getppid", "gettid",
    "getpgid", "getpgrp", "getsid", "setpgid", "setsid", "kill", "tkill", "tgkill", "pidfd_open",
    "pidfd_send_signal", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sigaltstack", "pause", "alarm", "restart_syscall",
    "set_tid_address", "set_robust_list", "get_robust_list", "set_thread_area", "get_thread_area", "rseq",
    "membarrier", "futex", "futex_waitv", "prctl", "landlock_create_ruleset", "landlock_add_rule",
    "landlock_restrict_self", "process_mrelease",
    /* ids: what may change is decided by capabilities, of which there are none */
    "getuid", "geteuid", "getresuid", "getgid", "getegid", "getresgid", "getgroups", "setuid", "setreuid",
    "setresuid", "setfsuid", "setgid", "setregid", "setresgid", "setfsgid", "setgroups", "capget", "capset",
    /* scheduling and limits */
    "sched_yield", "sched_getaffinity", "sched_setaffinity", "sched_getattr", "sched_setattr", "sched_getparam",
    "sched_setparam", "sched_getscheduler", "sched_setscheduler", "sched_get_priority_max", "sched_get_priority_min",
    "sched_rr_get_interval", "getpriority", "setpriority", "ioprio_get", "ioprio_set", "getrlimit", "getrusage", "times",
    "getcpu", "sysinfo", "uname",
    /* memory */
    "brk", "mmap", "munmap", "mprotect", "mremap", "madvise", "mincore", "msync", "mlock", "mlock2", "mlockall",
    "munlock", "munlockall", "memfd_create", "pkey_alloc", "pkey_free", "pkey_mprotect", "remap_file_pages",
    "map_shadow_stack",
    /* time; setting it takes a capability and is refused below */
    "time", "gettimeofday", "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "getitimer",
    "setitimer", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime",
    "timerfd_create", "timerfd_gettime", "timerfd_settime", "adjtimex", "clock_adjtime", "getrandom",
    /* descriptors */
    "read", "readv", "pread64", "preadv", "preadv2", "write", "writev", "pwrite64", "pwritev", "pwritev2", "lseek",
    "close", "close_range", "dup", "dup2", "dup3", "fcntl", "flock", "pipe", "pipe2", "splice", "tee", "sendfile",
    "copy_file_range", "poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl",
    "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd", "eventfd2", "signalfd", "signalfd4", "inotify_init",
    "inotify_init1", "inotify_add_watch", "inotify_rm_watch",
    /* files */
    "open", "openat", "openat2", "creat", "access", "faccessat", "faccessat2", "stat", "lstat", "fstat",
    "newfstatat", "statx", "statfs", "fstatfs", "getcwd", "chdir", "fchdir", "mkdir", "mkdirat", "rmdir", "rename",
    "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "readlink",
    "readlinkat", "getdents", "getdents64", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown",
    "fchownat", "umask", "utime", "utimes", "futimesat", "utimensat", "truncate", "ftruncate", "fallocate",
    "fadvise64", "readahead", "sync", "syncfs", "fsync", "fdatasync", "sync_file_range", "cachestat", "getxattr",
    "lgetxattr", "fgetxattr", "setxattr", "lsetxattr", "fsetxattr", "listxattr", "llistxattr", "flistxattr",
    "removexattr", "lremovexattr", "fremovexattr",
    /* sockets; `socket` itself is checked below */
    "socketpair", "bind", "listen", "accept", "accept4", "connect", "shutdown", "getsockname", "getpeername",
    "getsockopt", "setsockopt", "send", "sendto", "sendmsg", "sendmmsg", "recv", "recvfrom", "recvmsg", "recvmmsg",
    /* System V and POSIX IPC, in our own IPC namespace */
    "shmget", "shmat", "shmdt", "shmctl", "semget", "semop", "semtimedop", "semctl", "msgget", "msgsnd", "msgrcv",
    "msgctl", "mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr",
    NULL,
};

/* Known calls that are refused with EPERM: a program that tries one is told that it may not. Whatever is in neither
 * list, known today or not, is answered with ENOSYS, so that libraries fall back (runc's ENOSYS stub): clone3,
 * io_uring_*, io_setup (its 65536 events are for the whole host: fs.aio-max-nr), the new mount API (CVE-2021-41133),
 * NUMA policy. Battery C1-C4, D1-D5. */
const char *const seccomp_refused[] = {
    "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "swapon", "swapoff", "reboot", "kexec_load",
    "kexec_file_load", "init_module", "finit_module", "delete_module", "acct", "quotactl", "quotactl_fd",
    "sethostname", "setdomainname", "settimeofday", "clock_settime", "iopl", "ioperm", "modify_ldt", "syslog",
    "vhangup", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp", "bpf",
    "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "name_to_handle_at", "open_by_handle_at",
    "fanotify_init", "fanotify_mark", "vmsplice", "lookup_dcookie", "nfsservctl", "uselib", "ustat", "sysfs",
    "_sysctl", "migrate_pages", "move_pages", "memfd_secret",
    NULL,
};
// clang-format on

#define FULL 0xffffffffULL
#define ALL UINT64_MAX /* of a pointer */

/* The kernel looks at the low 32 bits of an int; so do these masks (a high half full of ones must not get by).
 * For one call, what is more special comes first in the table: libseccomp keeps that order, and
 * tests/unit/test_sandbox_seccomp.c proves it on the compiled filter. */
const struct seccomp_rule seccomp_rules[] = {
    /* No new namespace in any way: C1, C2. What needs capabilities over a user namespace of one's own, as CVE-2022-0185,
     * CVE-2023-0386, CVE-2021-3493, CVE-2023-2640 and CVE-2023-32629 do, begins here. clone3 hides its flags in memory and
     * does not exist here. */
    {"clone", {{0, 0x7e020000, 0}}, 0},
    {"clone", {{0, CLONE_NEWNS, CLONE_NEWNS}}, EPERM},
    {"clone", {{0, CLONE_NEWCGROUP, CLONE_NEWCGROUP}}, EPERM},
    {"clone", {{0, CLONE_NEWUTS, CLONE_NEWUTS}}, EPERM},
    {"clone", {{0, CLONE_NEWIPC, CLONE_NEWIPC}}, EPERM},
    {"clone", {{0, CLONE_NEWUSER, CLONE_NEWUSER}}, EPERM},
    {"clone", {{0, CLONE_NEWPID, CLONE_NEWPID}}, EPERM},
    {"clone", {{0, CLONE_NEWNET, CLONE_NEWNET}}, EPERM},
    /* Input into somebody's terminal, line disciplines: CVE-2017-5226, CVE-2023-28100, E5. */
    {"ioctl", {{1, FULL, TIOCSTI}}, EPERM},
    {"ioctl", {{1, FULL, TIOCLINUX}}, EPERM},
    {"ioctl", {{1, FULL, TIOCSETD}}, EPERM},
    {"ioctl", {{1, FULL, TIOCSCTTY}}, EPERM},
    {"ioctl", {{1, 1, 0}}, 0},
    {"ioctl", {{1, 1, 1}}, 0},
    /* 0, and "tell me" which is all ones; no READ_IMPLIES_EXEC, no ADDR_NO_RANDOMIZE: D12. */
    {"personality", {{0, FULL, PER_LINUX}}, 0},
    {"personality", {{0, FULL, 0xffffffff}}, 0},
    {"personality", {{0, 1, 0}}, EPERM},
    {"personality", {{0, 1, 1}}, EPERM},
    /* Own filters may be added, for they can only refuse more; a listener would answer calls in the kernel's place: D11. */
    {"seccomp", {{1, SECCOMP_FILTER_FLAG_NEW_LISTENER, 0}}, 0},
    {"seccomp", {{1, SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_FILTER_FLAG_NEW_LISTENER}}, EPERM},
    /* Thread areas, CET, XSAVE; not the faulting CPUID (0x1012), not the vdso of another ABI (0x2001 to 0x2003): D12. */
    {"arch_prctl", {{0, FULL, 0x1012}}, EPERM},
    {"arch_prctl", {{0, FULL & ~0xfffULL, 0x2000}}, EPERM},
    {"arch_prctl", {{0, 1, 0}}, 0},
    {"arch_prctl", {{0, 1, 1}}, 0},
    /* The limit of cores stays what rlimit.c has set: 0, which anybody may go down to, would start the host's handler of cores
     * (B10). Many a program sets 0 to be safe, so it is told that it has. */
    {"setrlimit", {{0, FULL, RLIMIT_CORE}}, SECCOMP_PRETEND},
    {"setrlimit", {{0, 1, 0}}, 0},
    {"setrlimit", {{0, 1, 1}}, 0},
    {"prlimit64", {{1, FULL, RLIMIT_CORE}, {2, ALL, 0}}, 0},
    {"prlimit64", {{1, FULL, RLIMIT_CORE}, {3, ALL, 0}}, SECCOMP_PRETEND},
    {"prlimit64", {{1, FULL, RLIMIT_CORE}, {2, 1, 0}}, EPERM}, /* who asks for the old one as well would get none */
    {"prlimit64", {{1, FULL, RLIMIT_CORE}, {2, 1, 1}}, EPERM},
    {"prlimit64", {{1, 1, 0}}, 0},
    {"prlimit64", {{1, 1, 1}}, 0},
    /* A fifo is a file; a device is not ours to make: A13. */
    {"mknod", {{1, S_IFMT, S_IFIFO}}, 0},
    {"mknod", {{1, S_IFMT, S_IFREG}}, 0},
    {"mknod", {{1, S_IFMT, 0}}, 0},
    {"mknod", {{1, S_IFMT, S_IFCHR}}, EPERM},
    {"mknod", {{1, S_IFMT, S_IFBLK}}, EPERM},
    {"mknodat", {{2, S_IFMT, S_IFIFO}}, 0},
    {"mknodat", {{2, S_IFMT, S_IFREG}}, 0},
    {"mknodat", {{2, S_IFMT, 0}}, 0},
    {"mknodat", {{2, S_IFMT, S_IFCHR}}, EPERM},
    {"mknodat", {{2, S_IFMT, S_IFBLK}}, EPERM},
    /* Families, types and protocols by allow-list: AF_ALG, AF_VSOCK, AF_PACKET, XFRM, ... do not exist (Copy Fail
     * CVE-2026-31431, Dirty Frag CVE-2026-43284 and CVE-2026-43500, Fragnesia CVE-2026-46300: D6-D10). The type carries
     * flags above its low four bits. */
    {"socket", {{0, FULL, AF_UNIX}, {1, 0xf, SOCK_STREAM}}, 0},
    {"socket", {{0, FULL, AF_UNIX}, {1, 0xf, SOCK_DGRAM}}, 0},
    {"socket", {{0, FULL, AF_UNIX}, {1, 0xf, SOCK_SEQPACKET}}, 0},
    {"socket", {{0, FULL, AF_INET}, {1, 0xf, SOCK_STREAM}, {2, FULL, 0}}, 0},
    {"socket", {{0, FULL, AF_INET}, {1, 0xf, SOCK_STREAM}, {2, FULL, 6 /* TCP */}}, 0},
    {"socket", {{0, FULL, AF_INET}, {1, 0xf, SOCK_DGRAM}, {2, FULL, 0}}, 0},
    {"socket", {{0, FULL, AF_INET}, {1, 0xf, SOCK_DGRAM}, {2, FULL, 17 /* UDP */}}, 0},
    {"socket", {{0, FULL, AF_INET6}, {1, 0xf, SOCK_STREAM}, {2, FULL, 0}}, 0},
    {"socket", {{0, FULL, AF_INET6}, {1, 0xf, SOCK_STREAM}, {2, FULL, 6}}, 0},
    {"socket", {{0, FULL, AF_INET6}, {1, 0xf, SOCK_DGRAM}, {2, FULL, 0}}, 0},
    {"socket", {{0, FULL, AF_INET6}, {1, 0xf, SOCK_DGRAM}, {2, FULL, 17}}, 0},
    {"socket", {{0, FULL, AF_NETLINK}, {1, 0xf, SOCK_RAW}, {2, FULL, 0 /* ROUTE */}}, 0},
    {"socket", {{0, FULL, AF_NETLINK}, {1, 0xf, SOCK_DGRAM}, {2, FULL, 0}}, 0},
    {"socket", {{0, FULL, AF_UNIX}, {1, 1, 0}}, EPERM},
    {"socket", {{0, FULL, AF_UNIX}, {1, 1, 1}}, EPERM},
    {"socket", {{0, FULL, AF_INET}, {1, 1, 0}}, EPERM},
    {"socket", {{0, FULL, AF_INET}, {1, 1, 1}}, EPERM},
    {"socket", {{0, FULL, AF_INET6}, {1, 1, 0}}, EPERM},
    {"socket", {{0, FULL, AF_INET6}, {1, 1, 1}}, EPERM},
    {"socket", {{0, FULL, AF_NETLINK}, {1, 1, 0}}, EPERM},
    {"socket", {{0, FULL, AF_NETLINK}, {1, 1, 1}}, EPERM},
    {"socket", {{0, FULL, AF_INET}, {1, 0xf, SOCK_STREAM}, {2, 1, 0}}, EPROTONOSUPPORT},
    {"socket", {{0, FULL, AF_INET}, {1, 0xf, SOCK_STREAM}, {2, 1, 1}}, EPROTONOSUPPORT},
    {"socket", {{0, FULL, AF_INET}, {1, 0xf, SOCK_DGRAM}, {2, 1, 0}}, EPROTONOSUPPORT},
    {"socket", {{0, FULL, AF_INET}, {1, 0xf, SOCK_DGRAM}, {2, 1, 1}}, EPROTONOSUPPORT},
    {"socket", {{0, FULL, AF_INET6}, {1, 0xf, SOCK_STREAM}, {2, 1, 0}}, EPROTONOSUPPORT},
    {"socket", {{0, FULL, AF_INET6}, {1, 0xf, SOCK_STREAM}, {2, 1, 1}}, EPROTONOSUPPORT},
    {"socket", {{0, FULL, AF_INET6}, {1, 0xf, SOCK_DGRAM}, {2, 1, 0}}, EPROTONOSUPPORT},
    {"socket", {{0, FULL, AF_INET6}, {1, 0xf, SOCK_DGRAM}, {2, 1, 1}}, EPROTONOSUPPORT},
    {"socket", {{0, FULL, AF_NETLINK}, {1, 0xf, SOCK_RAW}, {2, 1, 0}}, EPROTONOSUPPORT},
    {"socket", {{0, FULL, AF_NETLINK}, {1, 0xf, SOCK_RAW}, {2, 1, 1}}, EPROTONOSUPPORT},
    {"socket", {{0, FULL, AF_NETLINK}, {1, 0xf, SOCK_DGRAM}, {2, 1, 0}}, EPROTONOSUPPORT},
    {"socket", {{0, FULL, AF_NETLINK}, {1, 0xf, SOCK_DGRAM}, {2, 1, 1}}, EPROTONOSUPPORT},
    {"socket", {{0, 1, 0}}, EAFNOSUPPORT},
    {"socket", {{0, 1, 1}}, EAFNOSUPPORT},
    {NULL, {{0}}, 0},
};
