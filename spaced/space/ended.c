/* An app ended by itself, did not start, or felt a limit: what its owner is told, and whether it is started again. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "spaced/build/logfile.h"
#include "spaced/space/internal.h"

/* The app's own last words go where the push and the build log's readers see them. */
static void report_failed_start(struct instance *in, const char *message, bool serves)
{
	struct spaces *s = in->unit->s;
	cleanup_free char *build = logfile_build(s->config, in->build_id);
	cleanup_free char *run = logfile_run(s->config, in->unit->id, in->generation);
	cleanup_buf struct buf tail = BUF_INIT;

	logfile_tail(run, 0, 8192, 40, &tail);
	logfile_append(build, "%s%s===== Start failed: %s =====\n", tail.len ? "Last lines of the app's log:\n" : "",
		       tail.len ? tail.data : "", message);
	watch_end(s, in->build_id, "Failed: %s\n%s", message, serves ? "The version before still runs.\n" : "");
}

/* The app, which was healthy once, ended: again, later and later, until it is hopeless. */
static void crashed(struct instance *in, const char *message)
{
	struct unit *u = in->unit;
	struct spaces *s = u->s;
	char release[STORE_ID];

	if (in->extra) {
		replicas_ended(in, message);
		return;
	}
	int wait = crashes_note(&u->crashes, io_now_ms());
	cleanup_free char *text = NULL;

	memcpy(release, in->release_id, sizeof release);
	life_note(s, u->id, "crashed", message);
	life_make_old(in);
	if (in->exited)
		life_gone(in);
	else
		life_stop(in, 0);
	if (replicas_promote(u))
		return;
	if (wait < 0) {
		text = xasprintf("%s It ended %d times within %d minutes and is not started again.", message,
				 CRASHES_MAX, CRASH_WINDOW_MS / 60000);
		u->crashes.n = 0;
		life_stage(s, u->id, EV_GAVE_UP, text);
	} else {
		text = xasprintf("%s It is started again in %d s.", message, wait / 1000);
		life_stage(s, u->id, EV_CRASHED, text);
		if (!u->starting && !u->start_at)
			life_start_at(u, release, "", true, (uint64_t)wait);
	}
	starts_settle(s);
}

void life_start_failed(struct instance *in, const char *message)
{
	struct unit *u = in->unit;
	struct spaces *s = u->s;
	struct space sp = {0};
	struct err err = ERR_INIT;

	if (in->again || in->extra) {
		crashed(in, message);
		return;
	}
	if (store_space_by_id(s->store, u->id, &sp, &err) == 0) {
		bool serves = stage_serves(stage_next(sp.stage, EV_START_FAILED));
		cleanup_free char *text =
		    serves
			? xasprintf("The start of %.7s failed: %s The version before still runs.", in->commit, message)
			: xstrdup(message);
		life_make_old(in);
		life_stage(s, u->id, EV_START_FAILED, text);
		life_note(s, u->id, "start failed", message);
		if (*in->build_id)
			report_failed_start(in, message, serves);
		space_release(&sp);
	}
	life_stop(in, 0);
	starts_settle(s);
}

static void app_exited(struct spaces *s, const char *name, const struct sandbox_exit *e)
{
	struct instance *in = space_instance(s, name);
	cleanup_free char *message = NULL;

	if (!in) {
		place_forget(s->place, name);
		return;
	}
	in->exited = true;
	if (in->stop_sent)
		return; /* the answer to the stop comes when all of it is cleaned up */
	if (in->state == INST_STOPPING || in->state == INST_DRAINING) {
		life_gone(in);
		return;
	}
	bool says_more = *e->reason && strncmp(e->reason, "exit code", 9) != 0;
	message = xasprintf("Exit code: %d. Reason: %s.", e->status, says_more ? e->reason : "the app ended by itself");
	cleanup_free char *log = logfile_run(s->config, in->unit->id, in->generation);
	logfile_append(log, "\n===== %s =====\n", message);
	if (in->state == INST_STARTING)
		life_start_failed(in, message);
	else if (!sleep_lost(in))
		crashed(in, message);
}

void spaces_exited(struct spaces *s, const char *name, const struct sandbox_exit *e)
{
	traffic_note(s, name, e->received, e->sent);
	if (strncmp(name, "build-", 6) == 0)
		builder_exited(s->builder, name, e);
	else
		app_exited(s, name, e);
}

/* What runs on felt a limit: an event for its owner and a line in its log, whole or not at all beside the monitor's, which
 * appends to the same file. */
void spaces_limited(struct spaces *s, const char *name, enum limit_kind kind, const char *sentence)
{
	const struct instance *in = space_instance(s, name);
	cleanup_free char *event = xasprintf("limit: %s", limit_kind_name(kind));

	if (strncmp(name, "build-", 6) == 0) {
		builder_limited(s->builder, name, sentence);
	} else if (in) {
		cleanup_free char *log = logfile_run(s->config, in->unit->id, in->generation);
		logfile_append(log, "\n[spaced] %s\n", sentence);
		log_info("%s: %s", in->unit->name, sentence);
		life_note(s, in->unit->id, event, sentence);
	}
}
