/* Group A: files, mounts and what is inherited. */
#include "probe.h"

#include <sys/mount.h>
#include <sys/stat.h>

static char folder[] = "/tmp/probe-XXXXXX";

static long try_chroot(long unused)
{
	return chroot(folder);
}

static void a1(void)
{
	char path[4096] = "/";
	struct stat st;
	size_t n = 1;

	for (int i = 0; i < 64; i++)
		n += (size_t)snprintf(path + n, sizeof path - n, "../");
	snprintf(path + n, sizeof path - n, "%s", argument + 1);
	say(stat(path, &st) == 0, "host file above the root");
	say(stat(path + 1, &st) == 0, "host file above the working folder");
	if (mkdtemp(folder)) {
		in_child("chroot", try_chroot, 0);
		rmdir(folder);
	}
}

static void a9(void)
{
	bool any = false;

	for (int fd = 3; fd < 1024; fd++)
		any |= fcntl(fd, F_GETFD) >= 0;
	errno = EBADF;
	say(any, "an inherited descriptor");
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

static void a12(void)
{
	in_child("write into /usr", write_usr, 0);
	in_child("remount /usr", remount, 0);
	in_child("bind mount", bind_tmp, 0);
	in_child("unmount", unmount_proc, 0);
}

const struct probe_case fs_cases[] = {
    {"A1", a1},
    {"A9", a9},
    {"A12", a12},
    {NULL, NULL},
};
