/* How a shell (sandbox.h) learns what it is for: the spec, and all that a child which is born knowing it has in its memory
 * from its parent. Both ends are one program, a process and the child that it has cloned. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/frame.h"
#include "sandbox/contain.h"

/* Travels as it is. */
struct told {
	struct plan_facts facts;
	bool outlives;
};

int shell_tell(int sock, const struct sandbox_spec *spec, const struct plan_facts *facts, const int stdio[3],
	       bool outlives, struct err *err)
{
	struct told told;
	cleanup_buf struct buf b = BUF_INIT;

	memset(&told, 0, sizeof told); /* what lies between the fields, too */
	told.facts = *facts;
	told.outlives = outlives;
	sandbox_spec_encode(spec, &b);
	int rc = frame_send(sock, SYNC_SPEC, 0, b.data, b.len, NULL, 0);
	explicit_bzero(b.data, b.len); /* secrets of the environment */
	if (rc == 0)
		rc = frame_send(sock, SYNC_FACTS, 0, &told, sizeof told, stdio, 3);
	return rc < 0 ? err_set(err, -rc, "say what it is for") : 0;
}

static int hear_spec(struct contain *c, struct sandbox_spec *spec, struct err *err)
{
	struct frame f;

	if (sync_receive(c->sock, SYNC_SPEC, &f, err) < 0)
		return -1;
	struct reader r = reader_of(f.payload, f.len);
	int rc = sandbox_spec_decode(&r, spec, err);
	explicit_bzero(f.payload, f.len);
	frame_release(&f);
	if (rc == 0 && (spec->id_base != c->id_base || spec->profile != c->profile))
		return err_set(err, EPERM, "ids of %u and profile %d, where it was made for %u and %d", spec->id_base,
			       (int)spec->profile, c->id_base, (int)c->profile);
	return rc;
}

int shell_hear(struct contain *c, struct err *err)
{
	static struct sandbox_spec spec;
	static struct plan plan;
	struct told told;
	struct frame f;

	if (hear_spec(c, &spec, err) < 0 || sync_receive(c->sock, SYNC_FACTS, &f, err) < 0)
		return -1;
	bool whole = f.len == sizeof told && f.nfds == 3;
	if (whole)
		memcpy(&told, f.payload, sizeof told);
	for (int i = 0; whole && i < 3; i++)
		c->stdio[i] = frame_take_fd(&f, i);
	frame_release(&f);
	if (!whole)
		return err_set(err, EBADMSG, "the parent makes no sense");
	c->spec = &spec;
	c->outlives = told.outlives;
	c->plan = &plan;
	return plan_make(&spec, &told.facts, &plan, err);
}
