/* Any bytes as a tar stream: nothing outside the folder, never more than the limits. Beside the folder lies a file that
 * must stay as it is. */
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "spaced/static/extract.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BYTES = 40000, FILES = 40 };
static unsigned entries;
static uint64_t bytes;

static int look(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	if (at->level > 0)
		entries++;
	if (kind == FTW_F && st->st_nlink == 1)
		bytes += (uint64_t)st->st_size;
	if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode) && !S_ISLNK(st->st_mode))
		abort();
	if (st->st_mode & (S_ISUID | S_ISGID))
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct extract_limits limits = {BYTES, FILES};
	char dir[] = "/dev/shm/fuzz-extract-XXXXXX";
	struct err err = ERR_INIT;
	struct stat st;

	if (!mkdtemp(dir))
		abort();
	cleanup_close int up = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_close int in = memfd_create("tar", MFD_CLOEXEC);
	if (io_write_file(up, "outside", "safe", 4, 0600) < 0 || mkdirat(up, "in", 0755) < 0 ||
	    io_write_full(in, data, size) < 0 || lseek(in, 0, SEEK_SET) < 0)
		abort();
	cleanup_close int to = openat(up, "in", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	extract_tar(in, to, &limits, &err);
	cleanup_free char *path = xasprintf("%s/in", dir);
	entries = 0;
	bytes = 0;
	if (nftw(path, look, 16, FTW_PHYS) < 0 || entries > FILES || bytes > BYTES + 65536)
		abort();
	if (fstatat(up, "outside", &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_size != 4 || st.st_nlink != 1)
		abort();
	if (io_remove_tree(AT_FDCWD, dir) < 0)
		abort();
	return 0;
}
