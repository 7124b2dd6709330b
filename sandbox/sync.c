/* Steps of contain.c in which the child is in step with its parent, whose side is sandbox.c: into the cgroups that are made for
 * it, with nothing of it but what is said here, and no further than ids, mounts and limits are ready. */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/frame.h"
#include "base/io.h"
#include "sandbox/contain.h"

int cgroup_enter(struct contain *c, struct err *err)
{
	for (int i = 0; i < c->ndoors; i++)
		if (write(c->doors[i], "0", 1) != 1)
			return err_set(err, errno, "door %d", i);
	return cgroup_verify(c->group, err);
}

/* What the caller has open is its own, and a shell waits long. */
int descriptors_keep(struct contain *c, struct err *err)
{
	int *keep[6 + PLAN_MAX_MOUNTS] = {&c->sock, &c->status, &c->exec};
	int n = 3;

	for (int i = 0; i < 3; i++)
		if (c->stdio[i] >= 0)
			keep[n++] = &c->stdio[i];
	for (size_t i = 0; c->rootless && i < c->plan->nmounts; i++)
		keep[n++] = &c->mounts[i];
	int rc = io_keep_fds(keep, n);
	return rc < 0 ? err_set(err, -rc, "/dev/null, and what is kept") : 0;
}

int sync_receive(int sock, enum sync_frame type, struct frame *f, struct err *err)
{
	int rc = frame_recv(sock, f);

	if (rc <= 0)
		return err_set(err, rc < 0 ? -rc : ECONNRESET, "the parent is gone");
	if (f->type == (uint32_t)type)
		return 0;
	frame_release(f);
	return err_set(err, EBADMSG, "the parent is out of step");
}

/* What launch_map() sends. With the parent we die; a parent that has died since we were born is the end of file. */
int sync_wait_ids(struct contain *c, struct err *err)
{
	struct frame f;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return err_set(err, errno, "parent-death signal");
	if (sync_receive(c->sock, SYNC_IDS, &f, err) < 0)
		return -1;
	bool whole = f.nfds == c->usr;
	if (whole && c->usr)
		c->mounts[0] = frame_take_fd(&f, 0);
	frame_release(&f);
	return whole ? 0 : err_set(err, EBADMSG, "the parent makes no sense");
}

/* What launch_provide() sends. */
int sync_wait_plan(struct contain *c, struct err *err)
{
	int have = 0, want;

	/* Again: the change of ids has cleared it. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return err_set(err, errno, "parent-death signal");
	if (!c->spec && shell_hear(c, err) < 0)
		return -1;
	do {
		struct frame f;

		if (sync_receive(c->sock, SYNC_MOUNTS, &f, err) < 0)
			return -1;
		want = (int)f.id;
		for (int i = 0; i < f.nfds && have < PLAN_MAX_MOUNTS; i++)
			c->mounts[have++] = frame_take_fd(&f, i);
		frame_release(&f);
	} while (have < want);
	return 0;
}

/* What launch_let_go() sends. */
int sync_let_go(struct contain *c, struct err *err)
{
	struct frame f;

	if (prctl(PR_SET_PDEATHSIG, c->outlives ? 0 : SIGKILL, 0, 0, 0) < 0)
		return err_set(err, errno, "parent-death signal");
	if (sync_receive(c->sock, SYNC_GO, &f, err) < 0)
		return -1;
	frame_release(&f);
	return 0;
}
