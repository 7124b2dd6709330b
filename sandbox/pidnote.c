/* See pidnote.h. Called by the spawner for each sandbox, and by a daemon without root that looks for its namespace. */
#include "sandbox/pidnote.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <string.h>
#include <sys/pidfd.h>

#include "base/cleanup.h"
#include "base/io.h"

#define NOTE_MAX 256
#define BOOT_ID 40

/* proc(5): field 22 of stat, in ticks since boot; the name in field 2 may hold anything. */
static uint64_t start_time(pid_t pid)
{
	cleanup_buf struct buf text = BUF_INIT;
	char path[32];
	const char *p;
	unsigned long long t = 0;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	if (io_read_file(AT_FDCWD, path, 4096, &text) < 0 || !text.data || !(p = strrchr(text.data, ')')))
		return 0;
	for (int field = 2; *p && field < 22; field++) {
		p += strcspn(p, " ");
		p += *p == ' ';
	}
	return sscanf(p, "%llu", &t) == 1 ? t : 0;
}

static bool boot_id(char out[BOOT_ID])
{
	cleanup_buf struct buf text = BUF_INIT;

	return io_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 128, &text) == 0 && text.data &&
	       sscanf(text.data, "%39s", out) == 1;
}

int pidnote_write(int dirfd, const char *name, pid_t pid, struct err *err)
{
	char boot[BOOT_ID], text[NOTE_MAX];
	uint64_t t = start_time(pid);

	if (!t || !boot_id(boot))
		return err_set(err, ESRCH, "note process %d", (int)pid);
	int n = snprintf(text, sizeof text, "%d %" PRIu64 " %s\n", (int)pid, t, boot);
	int r = io_write_file(dirfd, name, text, (size_t)n, 0600);
	return r < 0 ? err_set(err, -r, "note process %d", (int)pid) : 0;
}

int pidnote_find(int dirfd, const char *name, pid_t *pid)
{
	cleanup_buf struct buf text = BUF_INIT;
	char boot[BOOT_ID], now[BOOT_ID];
	uint64_t t;
	int n;

	if (io_read_file(dirfd, name, NOTE_MAX, &text) < 0 || !text.data ||
	    sscanf(text.data, "%d %" SCNu64 " %39s", &n, &t, boot) != 3 || n <= 1 || !boot_id(now) ||
	    strcmp(boot, now) != 0)
		return -1;
	cleanup_close int fd = pidfd_open(n, 0);
	if (fd < 0 || start_time(n) != t) /* asked after the open: the number cannot have changed hands since */
		return -1;
	*pid = n;
	return steal_fd(&fd);
}
