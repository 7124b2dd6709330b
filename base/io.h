/* Small file work shared by all roles. Paths of outsiders are only ever resolved beneath a directory descriptor. */
#ifndef BASE_IO_H
#define BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

/* 0, or negative errno (-EPIPE on a peer that went away, -EIO on a short read). */
int io_write_full(int fd, const void *p, size_t n);
int io_read_full(int fd, void *p, size_t n);
/* Reads a whole file, at most `max` bytes (-EFBIG beyond). `dirfd` may be AT_FDCWD. Follows no final symlink. */
int io_read_file(int dirfd, const char *path, size_t max, struct buf *out);
/* The same of what a person names on a command line: that may well be a symlink, or a pipe. */
int io_read_named(const char *path, size_t max, struct buf *out);
/* Writes a file whole or not at all: temporary name, fsync, rename. */
int io_write_file(int dirfd, const char *path, const void *p, size_t n, mode_t mode);
/* Removes a file or a whole tree without ever following a symlink or leaving the file system. 0 (also when it is not
 * there) or negative errno of the first failure; goes on with the rest. */
int io_remove_tree(int dirfd, const char *name);
/* mkdir -p of one level: 0 when it exists as a directory afterwards. Sets the mode when it made it. */
int io_mkdir(int dirfd, const char *path, mode_t mode);
int io_set_nonblock(int fd, bool on);
int io_set_cloexec(int fd, bool on);
/* Moves these descriptors to 3, 4, ... in this order, closed by exec, and closes all others; 0, 1, 2 become /dev/null.
 * 0, or negative errno: which of them are where is not known then. */
int io_keep_fds(int *const fds[], int n);
/* Milliseconds of CLOCK_MONOTONIC; and of the wall clock since 1970. */
uint64_t io_now_ms(void);
uint64_t io_wall_ms(void);
/* `n` random bytes as 2n lower-case hex digits plus NUL. */
void io_random_hex(char *dst, size_t n);

/* First in a program: a standard descriptor that its caller has closed is /dev/null, so that nothing we open gets that
 * number, and with it into a child (CVE-2024-21626). As of a closed one, nothing can be read from 0 and nothing written to
 * 1 and 2. Ends the program where that cannot be had. */
void io_keep_stdio(void);

#endif
