/* Group B: procfs, sysfs, cgroupfs. */
#include "probe.h"

#include <dirent.h>

static void b1(void)
{
	static const char *const files[] = {
	    "/proc/kcore",    "/proc/kallsyms",	   "/proc/keys",      "/proc/timer_list", "/proc/sched_debug",
	    "/proc/kmsg",     "/proc/interrupts",  "/proc/config.gz", "/proc/iomem",	  "/proc/cmdline",
	    "/proc/slabinfo", "/proc/vmallocinfo", "/proc/modules",   "/dev/mem",	  "/dev/kmem",
	    "/dev/port",      "/dev/kmsg"};
	char byte;

	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		errno = ENODATA;
		int fd = open(files[i], O_RDONLY | O_NONBLOCK);
		say(fd >= 0 && read(fd, &byte, 1) == 1, files[i]);
		if (fd >= 0)
			close(fd);
	}
}

/* `argument`: a word in the command line of a process of the host. */
static void b3(void)
{
	DIR *d = opendir("/proc");
	bool found = false, environ_read = false;
	struct dirent *e;

	while (d && (e = readdir(d))) {
		char path[300], text[256] = "";
		snprintf(path, sizeof path, "/proc/%s/cmdline", e->d_name);
		int fd = open(path, O_RDONLY);
		ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
		if (fd >= 0)
			close(fd);
		/* Our own command line holds the word as well. */
		if (atoi(e->d_name) > 0 && atoi(e->d_name) != getpid())
			found |= n > 0 && memmem(text, (size_t)n, argument, strlen(argument));
	}
	errno = ESRCH;
	say(found, "a process of the host");
	int fd = open("/proc/1/environ", O_RDONLY);
	environ_read = fd >= 0;
	say(environ_read, "/proc/1/environ");
	say(open("/proc/1/root/etc/passwd", O_RDONLY) >= 0, "/proc/1/root");
	say(open("/proc/1/mem", O_RDONLY) >= 0, "/proc/1/mem");
	say(open("/proc/1/cmdline", O_RDONLY) >= 0, "/proc/1/cmdline");
}

static void b9(void)
{
	char line[4096];
	FILE *f = fopen("/proc/self/mountinfo", "r");
	bool found = false;

	while (f && fgets(line, sizeof line, f))
		found |= strstr(line, " - sysfs ") || strstr(line, " - cgroup") ||
			 (strstr(line, " / / ") && strstr(line, "ext4"));
	errno = ENOENT;
	say(found, "a mount of the host");
}

const struct probe_case proc_cases[] = {
    {"B1", b1},
    {"B3", b3},
    {"B9", b9},
    {NULL, NULL},
};
