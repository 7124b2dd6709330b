/* See git_int.h: when the packs of a repository are made one, and the child that does it (repack.c). */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "spaced/git/git_int.h"

#define PACKS_MAX 50
#define REPACK_MAX_S 3600

struct repack {
	struct git_job job; /* first */
	uv_timer_t deadline;
	unsigned holds; /* process, timer */
	char repo[64];
};

static bool many_packs(const struct config *config, const char *repo)
{
	cleanup_free char *path = xasprintf("%s/" STATE_REPOS "/%s/objects/pack", config->state, repo);
	cleanup_dir DIR *d = opendir(path);
	unsigned n = 0;

	for (struct dirent *e; d && n <= PACKS_MAX && (e = readdir(d));) {
		size_t len = strlen(e->d_name);
		n += len > 4 && !strcmp(e->d_name + len - 4, ".idx");
	}
	return n > PACKS_MAX;
}

static void on_closed(uv_handle_t *h)
{
	struct repack *p = h->data;

	if (--p->holds)
		return;
	p->job.g->repacking = false;
	git_job_remove(&p->job);
	free(p);
}

static void on_child_exit(uv_process_t *process, int64_t status, int sig)
{
	struct repack *p = process->data;

	p->job.child.running = false;
	if (sig || status)
		log_warn("git: the packs of %s stay as they are (status %lld, signal %d)", p->repo, (long long)status,
			 sig);
	uv_close((uv_handle_t *)process, on_closed);
	uv_close((uv_handle_t *)&p->deadline, on_closed);
}

static void on_deadline(uv_timer_t *t)
{
	struct repack *p = t->data;

	role_kill(&p->job.child);
}

void git_maintain(struct git_server *g, const char *repo)
{
	const char *const extra[] = {NULL};
	struct err err = ERR_INIT;

	if (g->closing || g->repacking || !many_packs(g->config, repo))
		return;
	struct repack *p = xcalloc(1, sizeof *p);
	uv_stdio_container_t stdio[] = {
	    {.flags = UV_IGNORE}, {.flags = UV_IGNORE}, {.flags = UV_INHERIT_FD, .data.fd = 2}};
	snprintf(p->repo, sizeof p->repo, "%s", repo);
	p->holds = 2;
	g->repacking = true;
	git_job_add(g, &p->job);
	uv_timer_init(g->loop, &p->deadline);
	p->deadline.data = p;
	int r = role_spawn(g->loop, &p->job.child, g->config, "repack", repo, extra, stdio, 3, on_child_exit, &err);
	p->job.child.process.data = p;
	if (r < 0) {
		log_error("git: %s", err.msg);
		uv_close((uv_handle_t *)&p->job.child.process, on_closed);
		uv_close((uv_handle_t *)&p->deadline, on_closed);
		return;
	}
	uv_timer_start(&p->deadline, on_deadline, 1000ULL * REPACK_MAX_S, 0);
}
