/* Persistent storage of a Space (space.h): the wish is a column of the store, the volume follows it. It is made and grown
 * before a start at the latest; it is removed when it is not wished for and the last instance that had it is gone. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "sandbox/volume.h"
#include "spaced/space/internal.h"

char *storage_volume(const char *space_id)
{
	return xasprintf(VOLUME_DATA "%s", space_id);
}

bool storage_in_use(const struct unit *u)
{
	if ((u->serving && u->serving->storage) || (u->starting && u->starting->storage))
		return true;
	for (const struct instance *in = u->old; in; in = in->next)
		if (in->storage)
			return true;
	return false;
}

/* -1: cannot be told. */
static int wished(struct spaces *s, const char *space_id)
{
	struct space sp = {0};
	struct err err = ERR_INIT;

	if (store_space_by_id(s->store, space_id, &sp, &err) < 0)
		return err.code == ENOENT ? 0 : -1;
	bool yes = sp.storage > 0;
	space_release(&sp);
	return yes;
}

void storage_let_go(struct unit *u)
{
	cleanup_free char *volume = storage_volume(u->id);

	if (!storage_in_use(u) && wished(u->s, u->id) == 0)
		place_volume_remove(u->s->place, volume, NULL, NULL);
}

bool storage_wanted(struct spaces *s, const char *volume)
{
	const char *id = volume + strlen(VOLUME_DATA);
	const struct unit *u = strlen(id) == STORE_ID - 1 ? unit_find(s, id) : NULL;

	return strlen(id) != STORE_ID - 1 || (u && storage_in_use(u)) || wished(s, id) != 0;
}

/* ---- changes ---- */

struct change {
	struct spaces *s;
	char id[STORE_ID];
};

static struct change *change_new(struct spaces *s, const char *id)
{
	struct change *c = xcalloc(1, sizeof *c);

	c->s = s;
	snprintf(c->id, sizeof c->id, "%s", id);
	return c;
}

static void failed(struct spaces *s, const char *id, const struct err *err)
{
	struct err ignored;

	log_error("storage of %s: %s", id, err->msg);
	store_event_add(s->store, id, NULL, "storage failed", err->msg, &ignored);
}

/* The running release again, beside the one that serves. */
static void restart(struct unit *u)
{
	const struct instance *in = u->starting ? u->starting : u->serving;
	char release[STORE_ID];

	if (!in || u->deleting)
		return;
	memcpy(release, in->release_id, sizeof release);
	life_start(u, release, "", false);
}

static void on_grown(void *ctx, const char *name, const struct err *err)
{
	cleanup_free struct change *c = ctx;
	struct unit *u = unit_find(c->s, c->id);

	if (err && err->code == EBUSY && u && !u->deleting)
		life_restart_alone(u, "Restarting, so that its storage can grow.");
	else if (err)
		failed(c->s, c->id, err);
}

/* Nothing of an earlier volume is left: what was asked to be deleted does not come back. */
static void on_empty(void *ctx, const char *name, const struct err *err)
{
	cleanup_free struct change *c = ctx;
	struct unit *u = unit_find(c->s, c->id);

	if (err)
		failed(c->s, c->id, err);
	else if (u)
		restart(u);
}

static int check(const struct spaces *s, const struct space *sp, const struct unit *u, uint64_t bytes, struct err *err)
{
	char have[16], want[16];

	limits_bytes(sp->storage, have);
	limits_bytes(bytes ? s->config->data_max : 0, want);
	if (sp->stage == STAGE_DELETING)
		return err_text(err, ENOENT, "This Space is being deleted");
	if (strcmp(sp->sdk, "static") == 0)
		return err_text(err, EINVAL, "A static Space has no process that could use storage");
	if (!bytes)
		return sp->storage ? 0 : err_text(err, EINVAL, "This Space has no persistent storage");
	if (bytes > s->config->data_max)
		return err_text(err, EINVAL, "At most %s of storage: the option data-max of this host", want);
	if (bytes < VOLUME_DATA_MIN_BYTES)
		return err_text(err, EINVAL, "At least %llu MiB of storage", VOLUME_DATA_MIN_BYTES >> 20);
	if (bytes < sp->storage)
		return err_text(err, EINVAL,
				"Storage cannot be made smaller than the %s that it has; switched off it is deleted",
				have);
	if (!sp->storage && storage_in_use(u))
		return err_text(err, EBUSY,
				"The storage of before is still in use by what is being stopped: try again soon");
	return 0;
}

static int change(struct spaces *s, const struct space *sp, uint64_t bytes, struct err *err)
{
	struct unit *u = unit_get(s, sp->id, err);
	cleanup_free char *volume = storage_volume(sp->id);
	char size[16], text[64];
	struct err ignored;

	if (!u || check(s, sp, u, bytes, err) < 0)
		return -1;
	if (bytes == sp->storage)
		return 0;
	if (store_space_set_storage(s->store, sp->id, bytes, err) < 0)
		return -1;
	limits_bytes(bytes, size);
	snprintf(text, sizeof text, "%s", bytes ? size : "off");
	store_event_add(s->store, sp->id, NULL, "storage", text, &ignored);
	if (!bytes && storage_in_use(u))
		restart(u); /* without it; the volume goes with the last that has it */
	else if (!bytes)
		place_volume_remove(s->place, volume, NULL, NULL);
	else if (!sp->storage)
		place_volume_remove(s->place, volume, on_empty, change_new(s, sp->id));
	else
		place_volume_ensure(s->place, volume, bytes, on_grown, change_new(s, sp->id));
	return 0;
}

int spaces_storage(struct spaces *s, const char *space_id, uint64_t bytes, struct err *err)
{
	struct space sp = {0};

	if (store_space_by_id(s->store, space_id, &sp, err) < 0)
		return -1;
	int rc = change(s, &sp, bytes, err);
	space_release(&sp);
	return rc;
}
