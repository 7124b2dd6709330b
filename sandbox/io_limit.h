/* The io limit of a sandbox: which block devices its files are on, and what each may carry. Called by the launcher.
 *
 * What the kernel charges: a request counts for the cgroup of the task that made it, at each device it passes. A volume is
 * an ext4 on a loop device; the loop driver sends the request on to the disk in the name of the same cgroup (Linux 5.13).
 * So a limit is kept twice, and the rules are made for that:
 *  - each device of a source (volumes: their loop devices) carries the limit, for reads and for writes;
 *  - the disk below carries the limit for writes, which is then the sum of all volumes, for these are nobody else's. Its
 *    reads get the limit times the number of sources: requests of ours that wait at the disk would occupy the queue of a
 *    loop device whose layer other Spaces read too.
 * Written through the page cache: on v2 charged to the writer, on v1 to nobody (cgroup-v1/blkio-controller.rst), so there
 * only what an app writes directly or waits for (O_DIRECT) is held back; reads are, on both.
 *
 * Weights are left as they are: all Spaces have the same one, which is the kernel's default. */
#ifndef SANDBOX_IO_LIMIT_H
#define SANDBOX_IO_LIMIT_H

#include "sandbox/sandbox.h"

/* Sets limits.io_bytes of `spec`. ENOTSUP where the kernel has no controller; sources that are on no block device (tmpfs)
 * are no error. */
int io_limit(const struct cgroup *cg, const struct sandbox_spec *spec, const struct sandbox_sources *src,
	     struct err *err);

#endif
