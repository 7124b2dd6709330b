/* See usage.h. */
#include "sandbox/usage.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

/* What the file system keeps back for itself counts as used: full is full. */
static bool ask(int fd, struct disk_usage *out)
{
	struct statfs s;

	if (fstatfs(fd, &s) < 0)
		return false;
	uint64_t block = (uint64_t)s.f_bsize;
	*out = (struct disk_usage){.used = (s.f_blocks - s.f_bavail) * block,
				   .size = s.f_blocks * block,
				   .inodes_used = s.f_files - s.f_ffree,
				   .inodes = s.f_files};
	return true;
}

/* The path is looked up inside: a link that the app has put there leads nowhere. */
static int open_inside(int root, const char *path)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC | O_DIRECTORY,
			       .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};

	return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

bool usage_of(pid_t init, struct usage *out)
{
	char path[64];
	struct statx st;

	*out = (struct usage){0};
	snprintf(path, sizeof path, "/proc/%d/root", (int)init);
	cleanup_close int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0 || !ask(root, &out->top)) /* overlay answers for its upper layer */
		return false;
	cleanup_close int data = open_inside(root, USAGE_DATA);
	if (data >= 0 && statx(data, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st) == 0 &&
	    (st.stx_attributes & STATX_ATTR_MOUNT_ROOT))
		ask(data, &out->data);
	return true;
}
