/* Commands inside running apps (space.h): which instance they are for, and who waits for their end. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "spaced/space/internal.h"

struct exec {
	struct spaces *s;
	struct exec *prev, *next; /* of s->execs */
	char instance[SANDBOX_NAME_MAX + 1];
	uint32_t number; /* the spawner's; 0: it has not started yet */
	bool left;
	struct exec_callbacks cb;
	void *ctx;
};

static void exec_free(struct exec *e)
{
	if (e->prev)
		e->prev->next = e->next;
	else
		e->s->execs = e->next;
	if (e->next)
		e->next->prev = e->prev;
	free(e);
}

static void end(struct exec *e, uint32_t status, const char *why)
{
	if (!e->left)
		e->cb.ended(e->ctx, status, why);
	exec_free(e);
}

static void on_started(void *ctx, uint32_t number, const int *fds, int n, const struct err *err)
{
	struct exec *e = ctx;

	if (!err && !e->left) {
		e->number = number;
		e->cb.started(e->ctx, fds, n, NULL);
		return;
	}
	if (!err)
		place_exec_signal(e->s->place, e->instance, number, 0);
	for (int i = 0; i < n; i++)
		close(fds[i]);
	if (!e->left)
		e->cb.started(e->ctx, NULL, 0, err);
	exec_free(e);
}

/* One that is not healthy yet will do: that may be just why somebody wants to look. */
static const struct instance *instance_of(const struct unit *u)
{
	if (u && u->serving)
		return u->serving;
	return u && u->starting && u->starting->up ? u->starting : NULL;
}

static int why_not(struct spaces *s, const char *space_id, struct err *err)
{
	struct space sp = {0};
	struct release rel = {0};
	struct run_plan plan = {0};
	struct err ignored = ERR_INIT;

	if (store_space_by_id(s->store, space_id, &sp, err) < 0)
		return -1;
	if (store_release_by_id(s->store, sp.release_id, &rel, &ignored) == 0)
		(void)run_plan_parse(rel.recipe, &plan, &ignored);
	if (plan.site)
		err_text(err, EINVAL, "%s/%s is static: its files are served, no process runs", sp.owner, sp.name);
	else
		err_text(err, EBUSY, "%s/%s does not run: it is %s", sp.owner, sp.name, space_stage_name(sp.stage));
	run_plan_release(&plan);
	release_release(&rel);
	space_release(&sp);
	return -1;
}

struct exec *spaces_exec(struct spaces *s, const char *space_id, const struct exec_request *q,
			 const struct exec_callbacks *cb, void *ctx, struct err *err)
{
	struct unit *u = unit_find(s, space_id);

	if (u && u->serving)
		sleep_wake(u, "a command");
	const struct instance *in = instance_of(u);
	if (!in) {
		why_not(s, space_id, err);
		return NULL;
	}
	struct exec *e = xcalloc(1, sizeof *e);
	*e = (struct exec){.s = s, .next = s->execs, .cb = *cb, .ctx = ctx};
	memcpy(e->instance, in->name, sizeof e->instance);
	if (s->execs)
		s->execs->prev = e;
	s->execs = e;
	place_exec(s->place, e->instance, q, on_started, e);
	return e;
}

void spaces_exec_signal(struct exec *e, uint32_t signo)
{
	if (e->number)
		place_exec_signal(e->s->place, e->instance, e->number, signo);
}

void spaces_exec_leave(struct exec *e)
{
	e->left = true;
	if (!e->number) /* on_started will come */
		return;
	place_exec_signal(e->s->place, e->instance, e->number, 0);
	exec_free(e);
}

void spaces_exec_ended(struct spaces *s, const char *instance, uint32_t number, uint32_t status, const char *why)
{
	for (struct exec *e = s->execs; e; e = e->next) {
		if (e->number == number && strcmp(e->instance, instance) == 0) {
			end(e, status, why);
			return;
		}
	}
}

bool exec_runs(const struct spaces *s, const char *instance)
{
	for (const struct exec *e = s->execs; e; e = e->next)
		if (strcmp(e->instance, instance) == 0)
			return true;
	return false;
}

/* Those that have not started are answered by their calls. */
void exec_lost(struct spaces *s)
{
	for (struct exec *e = s->execs, *next; e; e = next) {
		next = e->next;
		if (e->number)
			end(e, 128 + SIGKILL, "the spawner has ended, and with it the command");
	}
}

void exec_free_all(struct spaces *s)
{
	while (s->execs)
		exec_free(s->execs);
}
