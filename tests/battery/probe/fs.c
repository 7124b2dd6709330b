/* Group A: files, mounts and what is inherited. */
#include "probe.h"

#include <dirent.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

static char folder[] = "/tmp/probe-XXXXXX";

static long try_chroot(long unused)
{
	return chroot(folder);
}

/* A folder above the new root stays open, and ".." from there is not stopped by it. */
static long chroot_dance(long unused)
{
	struct stat st;
	int above = open("/", O_RDONLY | O_DIRECTORY);

	if (above < 0 || chroot(folder) < 0 || fchdir(above) < 0)
		return -1;
	for (int i = 0; i < 64; i++)
		if (chdir("..") < 0)
			return -1;
	return stat(argument + 1, &st);
}

static void a1(void)
{
	char path[4096] = "/";
	struct stat st, up;
	size_t n = 1;

	for (int i = 0; i < 64; i++)
		n += (size_t)snprintf(path + n, sizeof path - n, "../");
	snprintf(path + n, sizeof path - n, "%s", argument + 1);
	say(stat(path, &st) == 0, "host file above the root");
	say(stat(path + 1, &st) == 0, "host file above the working folder");
	fact("root", "%d", stat("/", &st) == 0 && stat("/..", &up) == 0 && st.st_ino == up.st_ino);
	if (mkdtemp(folder)) {
		in_child("chroot", try_chroot, 0);
		in_child("chroot and out of it", chroot_dance, 0);
		rmdir(folder);
	}
}

/* Whatever else of this list is asked: is a file of the host in reach? `argument`: its path. */
static void host_file(void)
{
	char path[4200], cwd[4096];
	struct stat st;

	say(stat(argument, &st) == 0, "host file by its path");
	snprintf(path, sizeof path, "../../../../../../../..%s", argument);
	say(stat(path, &st) == 0, "host file from the working folder");
	fact("cwd", "%s", getcwd(cwd, sizeof cwd) ? cwd : "");
	fact("null", "%d", stat("/dev/null", &st) == 0 && st.st_rdev == makedev(1, 3));
	fact("proc", "%d", stat("/proc/self/stat", &st) == 0 && st.st_size == 0 && S_ISREG(st.st_mode));
}

/* Nothing to see: the null device or an empty folder. */
static bool is_mask(const char *path)
{
	struct stat st;
	int entries = 0;

	if (stat(path, &st) < 0)
		return false;
	if (!S_ISDIR(st.st_mode))
		return S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
	DIR *d = opendir(path);
	while (d && readdir(d))
		entries++;
	if (d)
		closedir(d);
	return entries == 2;
}

/* The masks, behind which a write would hit the host: /dev/null in their place is as good as nothing. */
static void a5(void)
{
	char name[64];

	static const char *const masked[] = {
	    "/proc/sysrq-trigger", "/proc/kcore",      "/proc/keys",	 "/proc/timer_list",  "/proc/mtrr",
	    "/proc/latency_stats", "/proc/slabinfo",   "/proc/iomem",	 "/proc/acpi/wakeup", "/proc/sched_debug",
	    "/proc/kmsg",	   "/proc/interrupts", "/proc/kallsyms", "/proc/modules"};
	struct stat st;

	for (size_t i = 0; i < sizeof masked / sizeof *masked; i++) {
		int fd = open(masked[i], O_WRONLY);
		bool null = fd >= 0 && fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);

		if (null)
			errno = ENODEV;
		say(fd >= 0 && !null, masked[i]);
		if (fd >= 0)
			close(fd);
		snprintf(name, sizeof name, "%s without a mask", masked[i]);
		errno = ENODEV;
		say(access(masked[i], F_OK) == 0 && !is_mask(masked[i]), name);
	}
}

static void a9(void)
{
	char path[64], to[256];
	struct stat st;

	for (int fd = 3; fd < 1024; fd++) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		ssize_t n = fstat(fd, &st) == 0 ? readlink(path, to, sizeof to - 1) : -1;
		if (n >= 0)
			fact("descriptor", "%d %.*s", fd, (int)n, to);
		if (n >= 0)
			say(true, S_ISDIR(st.st_mode) ? "an inherited folder" : "an inherited descriptor");
	}
	errno = EBADF;
	if (fcntl(3, F_GETFD) < 0)
		say(false, "an inherited folder");
}

/* CVE-2019-5736: the program that started us, opened through /proc when nobody executes it any more: by a shell in our
 * place, which has a descriptor of it. */
static void a11(void)
{
	char path[64];
	bool any = false;

	for (int i = 1; i < 64; i++) {
		snprintf(path, sizeof path, "/proc/%d/exe", i);
		if (i != getpid())
			any |= open(path, O_WRONLY | O_APPEND) >= 0;
	}
	if (any)
		say(any, "write to another process' program");
	snprintf(path, sizeof path, "/proc/self/fd/%d", open("/proc/self/exe", O_PATH));
	execl("/bin/sh", "sh", "-c",
	      "if (: >>\"$0\") 2>/dev/null; then echo reached write to the program that ran;"
	      "else echo 'blocked write to the program that ran (EACCES)'; fi",
	      path, NULL);
}

static long write_usr(long unused)
{
	int fd = open("/usr/bin/probe-canary", O_CREAT | O_WRONLY, 0644);

	return fd < 0 ? -1 : unlink("/usr/bin/probe-canary");
}

static long remount(long unused)
{
	return mount(NULL, "/usr", NULL, MS_REMOUNT | MS_BIND, NULL) == 0 ? 0
									  : mount("/usr", "/usr", NULL, MS_BIND, NULL);
}

static long bind_mount(const char *from, const char *to)
{
	return mount(from, to, NULL, MS_BIND, NULL);
}

static long bind_tmp(long unused)
{
	return bind_mount("/tmp", "/mnt");
}

static long unmount_proc(long unused)
{
	return bind_mount("/proc", "/proc") < 0 ? -1 : umount2("/proc", MNT_DETACH);
}

/* What does not change anything when it may. */
static long same_mode(long unused)
{
	struct stat st;

	return stat("/usr/bin/env", &st) < 0 ? -1 : chmod("/usr/bin/env", st.st_mode & 07777);
}

static long open_to_write(long unused)
{
	int fd = open("/usr/share/common-licenses/GPL-3", O_WRONLY | O_APPEND);

	return fd < 0 && errno == ENOENT ? open("/usr/lib/os-release", O_WRONLY | O_APPEND) : fd;
}

static void a12(void)
{
	in_child("write into /usr", write_usr, 0);
	in_child("open a file of /usr to write", open_to_write, 0);
	in_child("change a mode in /usr", same_mode, 0);
	in_child("remount /usr", remount, 0);
	in_child("bind mount", bind_tmp, 0);
	in_child("unmount", unmount_proc, 0);
}

/* `argument`: a folder with ready-made nodes "chr" and "blk". */
static void a13(void)
{
	static const struct {
		const char *name;
		mode_t type;
		dev_t device;
	} nodes[] = {{"make a character device", S_IFCHR, 0x105}, {"make a block device", S_IFBLK, 0x700}};
	char path[4096];

	for (int where = 0; where < 2; where++)
		for (size_t i = 0; i < 2; i++) {
			char name[64];

			snprintf(path, sizeof path, "%s/probe-node", where ? argument : "/tmp");
			snprintf(name, sizeof name, "%s on %s", nodes[i].name, where ? "a volume" : "/tmp");
			int rc = mknod(path, nodes[i].type | 0600, nodes[i].device);
			say(rc == 0, name);
			unlink(path);
		}
	snprintf(path, sizeof path, "%s/chr", argument);
	say(open(path, O_RDONLY) >= 0, "open a ready-made character device");
	snprintf(path, sizeof path, "%s/blk", argument);
	int fd = open(path, O_RDONLY | O_NONBLOCK);
	say(fd >= 0 || errno == ENXIO, "open a ready-made block device");
}

/* Runs `argument`, a copy of this program that is more than a file, as an ordinary user. */
static int run_as_user(const char *what)
{
	int status = -1;

	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		if (setresgid(1000, 1000, 1000) < 0 || setresuid(1000, 1000, 1000) < 0)
			_exit(99);
		execl(argument, argument, what, NULL);
		_exit(98);
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 97;
}

static bool any_cap(void)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2] = {{0}};

	return syscall(SYS_capget, &h, d) == 0 && (d[0].effective | d[0].permitted | d[1].effective | d[1].permitted);
}

static void who_am_i(void)
{
	_exit((geteuid() == 0 ? 1 : 0) | (getegid() == 0 ? 2 : 0) | (any_cap() ? 4 : 0));
}

static void a14(void)
{
	int got = run_as_user("whoami");

	fact("ran", "%d", got);
	errno = EPERM;
	say(got < 8 && got & 1, "euid of a setuid file");
	say(got < 8 && got & 2, "egid of a setgid file");
}

static void a15(void)
{
	int got = run_as_user("whoami");

	fact("ran", "%d", got);
	errno = EPERM;
	say(got < 8 && got & 4, "capabilities of a file");
}

/* `argument`: two folders on one file system, "one:two", the first read-only inside. */
static void a16(void)
{
	char *colon = strchr(argument, ':'), one[2048], two[2048], from[4096], to[4096];

	snprintf(one, sizeof one, "%.*s", (int)(colon - argument), argument);
	snprintf(two, sizeof two, "%s", colon + 1);
	snprintf(from, sizeof from, "%s/file", one);
	snprintf(to, sizeof to, "%s/link", two);
	say(link(from, to) == 0, "hard link across mounts");
	unlink(to);
	int fd = open(two, O_TMPFILE | O_RDWR, 0600);
	snprintf(from, sizeof from, "/proc/self/fd/%d", fd);
	snprintf(to, sizeof to, "%s/tmpfile", one);
	say(fd >= 0 && linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0, "O_TMPFILE linked across mounts");
	unlink(to);
	snprintf(from, sizeof from, "%s/moved", two);
	snprintf(to, sizeof to, "%s/moved", one);
	close(open(from, O_CREAT | O_WRONLY, 0600));
	say(rename(from, to) == 0, "rename across mounts");
	unlink(from);
	unlink(to);
}

/* Shocker. `argument`: "folder:type:hex of a handle" of a file that is elsewhere on the folder's file system. */
static void a17(void)
{
	char *copy = strdup(argument), *save = NULL;
	const char *path = strtok_r(copy, ":", &save), *type = strtok_r(NULL, ":", &save),
		   *hex = strtok_r(NULL, ":", &save);
	struct {
		struct file_handle h;
		unsigned char bytes[128];
	} handle = {.h.handle_type = type ? atoi(type) : 0};
	int mount_id, at = open(path, O_RDONLY | O_DIRECTORY);

	for (; hex && hex[0] && hex[1] && handle.h.handle_bytes < 128; hex += 2)
		sscanf(hex, "%2hhx", &handle.h.f_handle[handle.h.handle_bytes++]);
	say(open_by_handle_at(at, &handle.h, O_RDONLY) >= 0, "open a file by its handle");
	handle.h.handle_bytes = 128;
	say(name_to_handle_at(AT_FDCWD, "/usr", &handle.h, &mount_id, 0) == 0, "handle of a file");
	free(copy);
}

const struct probe_case fs_cases[] = {
    {"A1", a1},	  {"A2", host_file}, {"A5", a5},   {"A9", a9},	 {"A10", host_file},   {"A11", a11}, {"A12", a12},
    {"A13", a13}, {"A14", a14},	     {"A15", a15}, {"A16", a16}, {"whoami", who_am_i}, {"A17", a17}, {NULL, NULL},
};
