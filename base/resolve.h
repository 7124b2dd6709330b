/* Paths of outsiders, resolved by openat2(2), or where that is missing (Linux < 5.6, a container runtime that filters it) or
 * cannot tell, by walking them component by component under O_NOFOLLOW. SPACED_FORCE=no_openat2 forces the walk, so that tests run
 * both. Neither ever leaves the folder, whatever is renamed meanwhile; a ".." is a step back on the way that was walked. */
#ifndef BASE_RESOLVE_H
#define BASE_RESOLVE_H

#include <stdbool.h>

/* As if `root` were "/": absolute paths and ".." stop there, symlinks lead inside (RESOLVE_IN_ROOT), and magic links of
 * procfs nowhere (ELOOP). O_CLOEXEC added. A descriptor, or negative errno. Not for O_CREAT. */
int resolve_in_root(int root, const char *path, int flags);
/* Symlinks are followed as long as they stay inside; what would leave, an absolute one too, is -EXDEV (RESOLVE_BENEATH). */
int resolve_inside(int dirfd, const char *path, int flags);
/* No way out, and no symlink anywhere: -ELOOP (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS). */
int resolve_beneath(int dirfd, const char *path, int flags);
bool resolve_has_openat2(void);

#endif
