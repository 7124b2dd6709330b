/* See usage.h. */
#include "sandbox/usage.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/resolve.h"

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

bool usage_of(pid_t init, struct usage *out)
{
	char path[64];
	struct statx st;

	*out = (struct usage){0};
	snprintf(path, sizeof path, "/proc/%d/root", (int)init);
	cleanup_close int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0 || !ask(root, &out->top)) /* overlay answers for its upper layer */
		return false;
	/* looked up inside, and a link that the app has put there leads nowhere */
	cleanup_close int data = resolve_beneath(root, &USAGE_DATA[1], O_PATH | O_DIRECTORY);
	if (data >= 0 && statx(data, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st) == 0 &&
	    (st.stx_attributes & STATX_ATTR_MOUNT_ROOT))
		ask(data, &out->data);
	return true;
}
