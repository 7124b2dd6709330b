/* The heart of the extract role: a tar stream of an outsider becomes a folder. Unit-tested and fuzzed without the role. */
#ifndef SPACED_STATIC_EXTRACT_H
#define SPACED_STATIC_EXTRACT_H

#include <stdint.h>

#include "base/err.h"

struct extract_limits {
	uint64_t bytes; /* of all files together */
	uint32_t files; /* entries of any kind, and folders made on the way */
};

/* Reads the tar stream of `in_fd` into the empty folder `dir_fd`. Every name is resolved beneath it, without symlinks;
 * symlinks themselves are made last, and only those that stay inside. EFBIG beyond the limits, EINVAL for what no site
 * may hold. Files are 0644, folders 0755, all on disk when it returns 0; user.spaced.sha256 names their content. */
int extract_tar(int in_fd, int dir_fd, const struct extract_limits *limits, struct err *err);

#endif
