/* Ownership made visible: a local declared `cleanup_x` is released when it goes out of scope, unless it
 * was moved on with a steal function. Idea: crun, systemd. */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_freep(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_closep(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_filep(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void cleanup_dirp(DIR **d)
{
	if (*d)
		closedir(*d);
}

#define cleanup_with(fn) __attribute__((cleanup(fn)))
#define cleanup_free cleanup_with(cleanup_freep)
#define cleanup_close cleanup_with(cleanup_closep) /* initialise with -1 */
#define cleanup_file cleanup_with(cleanup_filep)
#define cleanup_dir cleanup_with(cleanup_dirp)

/* Moves the descriptor out; the variable is left at -1. */
static inline int steal_fd(int *fd)
{
	int v = *fd;
	*fd = -1;
	return v;
}

/* Moves the pointer out; the variable is left NULL. */
#define steal_ptr(p)                                                                                                   \
	({                                                                                                             \
		__typeof__(*(p)) *pp_ = (p);                                                                           \
		__typeof__(*(p)) v_ = *pp_;                                                                            \
		*pp_ = NULL;                                                                                           \
		v_;                                                                                                    \
	})

#endif
