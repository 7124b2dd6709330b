/* See io_limit.h. */
#include "sandbox/io_limit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"

#define MAX_DISKS (SANDBOX_MAX_LAYERS + SANDBOX_MAX_BINDS + 3)
#define LOOP_MAJOR 7

struct disks {
	dev_t dev[MAX_DISKS];
	size_t n;
};

static void add(struct disks *d, dev_t dev)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->dev[i] == dev)
			return;
	if (dev && d->n < MAX_DISKS)
		d->dev[d->n++] = dev;
}

/* The number of the whole disk behind a partition, which alone can be given a rule; 0: not a block device (tmpfs, btrfs,
 * an overlay). */
static dev_t whole(dev_t dev)
{
	char path[64], text[32];
	unsigned ma, mi;

	snprintf(path, sizeof path, "/sys/dev/block/%u:%u/partition", major(dev), minor(dev));
	bool part = access(path, F_OK) == 0;
	snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%sdev", major(dev), minor(dev), part ? "../" : "");
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	return sscanf(text, "%u:%u", &ma, &mi) == 2 ? makedev(ma, mi) : 0;
}

/* The disk that holds a loop device's image, or 0. */
static dev_t below(dev_t loop)
{
	struct loop_info64 info;
	char path[32];

	snprintf(path, sizeof path, "/dev/loop%u", minor(loop));
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd >= 0 && ioctl(fd, LOOP_GET_STATUS64, &info) == 0 ? whole((dev_t)info.lo_device) : 0;
}

static void collect(const struct sandbox_spec *spec, const struct sandbox_sources *src, struct disks *d)
{
	int fds[MAX_DISKS] = {src->base_usr, src->skeleton, src->top};
	size_t n = 3;
	struct stat st;

	for (size_t i = 0; i < spec->nlayers; i++)
		fds[n++] = src->layers[i];
	for (size_t i = 0; i < spec->nbinds; i++)
		fds[n++] = src->binds[i];
	for (size_t i = 0; i < n; i++)
		if (fds[i] >= 0 && fstat(fds[i], &st) == 0)
			add(d, whole(st.st_dev));
}

int io_limit(const struct cgroup *cg, const struct sandbox_spec *spec, const struct sandbox_sources *src,
	     struct err *err)
{
	struct disks own = {.n = 0}, under = {.n = 0};
	uint64_t bytes = spec->limits.io_bytes;

	collect(spec, src, &own);
	for (size_t i = 0; i < own.n; i++)
		add(&under, major(own.dev[i]) == LOOP_MAJOR ? below(own.dev[i]) : own.dev[i]);
	for (size_t i = 0; i < own.n; i++)
		if (cgroup_host()->io(cg, own.dev[i], bytes, bytes, err) < 0)
			return -1;
	for (size_t i = 0; i < under.n; i++)
		if (cgroup_host()->io(cg, under.dev[i], bytes * own.n, bytes, err) < 0)
			return -1;
	return 0;
}
