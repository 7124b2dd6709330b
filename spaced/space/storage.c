/* Persistent storage of a Space (space.h): the wish is a column of the store, the volume follows it. It is made and grown
 * before a start at the latest; it is removed when it is not wished for and the last instance that had it is gone. Storage that is
 * switched on after it was off is another volume, with the next number: what was deleted has no way back, also when its
 * removal failed, when something still uses it, or when we died in between; gc removes it then. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "sandbox/volume.h"
#include "spaced/space/internal.h"

static void volume_name(const char *space_id, uint32_t number, char out[SANDBOX_NAME_MAX + 1])
{
	if (number)
		snprintf(out, SANDBOX_NAME_MAX + 1, VOLUME_DATA "%s-%u", space_id, number);
	else
		snprintf(out, SANDBOX_NAME_MAX + 1, VOLUME_DATA "%s", space_id);
}

void storage_volume(const struct space *sp, char out[SANDBOX_NAME_MAX + 1])
{
	volume_name(sp->id, sp->volume, out);
}

/* Started before storage was switched off: by then it had the one before. */
void storage_adopted(const struct space *sp, char out[SANDBOX_NAME_MAX + 1])
{
	out[0] = '\0';
	if (sp->storage || sp->volume)
		volume_name(sp->id, sp->volume - !sp->storage, out);
}

static bool has(const struct instance *in, const char *volume)
{
	return in && strcmp(in->data, volume) == 0;
}

static bool in_use(const struct unit *u, const char *volume)
{
	if (has(u->serving, volume) || has(u->starting, volume))
		return true;
	for (const struct instance *in = u->old; in; in = in->next)
		if (has(in, volume))
			return true;
	for (const struct instance *in = u->extra; in; in = in->next)
		if (has(in, volume))
			return true;
	return false;
}

void storage_let_go(const struct instance *in)
{
	if (*in->data && !storage_wanted(in->unit->s, in->data))
		place_volume_remove(in->unit->s->place, in->data, NULL, NULL);
}

/* data-{id} or data-{id}-{number} */
static bool id_of(const char *volume, char id[STORE_ID])
{
	size_t n = strlen(VOLUME_DATA);

	if (strncmp(volume, VOLUME_DATA, n) != 0 || strlen(volume) < n + STORE_ID - 1 ||
	    !strchr("-", volume[n + STORE_ID - 1]))
		return false;
	snprintf(id, STORE_ID, "%s", volume + n);
	return true;
}

bool storage_wanted(struct spaces *s, const char *volume)
{
	char id[STORE_ID], own[SANDBOX_NAME_MAX + 1];
	struct space sp = {0};
	struct err err = ERR_INIT;

	if (!id_of(volume, id))
		return true;
	const struct unit *u = unit_find(s, id);
	if (u && in_use(u, volume))
		return true;
	if (store_space_by_id(s->store, id, &sp, &err) < 0)
		return err.code != ENOENT;
	storage_volume(&sp, own);
	bool wanted = sp.storage > 0 && strcmp(own, volume) == 0;
	space_release(&sp);
	return wanted;
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

static int check(const struct spaces *s, const struct space *sp, uint64_t bytes, struct err *err)
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
	return 0;
}

static int change(struct spaces *s, const struct space *sp, uint64_t bytes, struct err *err)
{
	struct unit *u = unit_get(s, sp->id, err);
	char size[16], text[64], volume[SANDBOX_NAME_MAX + 1];
	struct err ignored;

	if (!u || check(s, sp, bytes, err) < 0)
		return -1;
	if (bytes == sp->storage)
		return 0;
	if (store_space_set_storage(s->store, sp->id, bytes, err) < 0)
		return -1;
	storage_volume(sp, volume);
	limits_bytes(bytes, size);
	snprintf(text, sizeof text, "%s", bytes ? size : "off");
	store_event_add(s->store, sp->id, NULL, "storage", text, &ignored);
	if (!bytes && !in_use(u, volume))
		place_volume_remove(s->place, volume, NULL, NULL);
	else if (!bytes || !sp->storage) /* without it, and it goes with the last that has it; or with a new one */
		restart(u);
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
