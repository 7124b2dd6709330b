/* Base images: what sandboxes stand on instead of the host's /usr, so that they share no cached page with what the host
 * executes (the page-cache family of 2026: CVE-2026-31431, CVE-2026-43284, CVE-2026-43500, CVE-2026-46300).
 *
 * An image has an id, NAME-VERSION, and never changes; made again, a base of the same name gets a new version, and what runs
 * on the old one keeps it. It is a volume "base-ID" (volume.h) that holds usr/, var/lib/dpkg/ and root/, the skeleton made
 * from its own /etc (skeleton.h), and a record STATE/bases/ID.json, written last and readable by all roles: an image without
 * a record is none. What the record says is its writer's business. STATE/bases/default names the base of Spaces that name
 * none. Written by root only (`spacectl base`, the spawner). */
#ifndef SANDBOX_BASE_H
#define SANDBOX_BASE_H

#include <stdbool.h>
#include <stddef.h>

#include "sandbox/volume.h"

#define BASE_PREFIX "base-"
#define BASE_NAME_MAX 40
#define BASE_ID (BASE_NAME_MAX + 1 + 14 + 1) /* with NUL; the version is a time in UTC, YYYYMMDDHHMMSS */
#define BASE_MAKING ".base-making"	     /* the volume of the one that is being made */
#define BASE_HOST "host"		     /* the name of no image: the host's own /usr */
#define STATE_BASES "bases"

/* [a-z0-9][a-z0-9-]*, at most BASE_NAME_MAX bytes, and neither "host" nor "default". */
bool base_name_ok(const char *name);
/* Cuts an id; false when it is none. `name` may be NULL. */
bool base_id_split(const char *id, char name[BASE_NAME_MAX + 1]);
/* The id of a version made now, later than every one that is there. */
void base_id_new(const char *state, const char *name, char id[BASE_ID]);
/* The name of an image's volume. malloc'd. */
char *base_volume(const char *id);

/* The ids of all bases, sorted, the newest of a name last; malloc'd, NULL when there is none. */
char (*base_list(const char *state, size_t *n))[BASE_ID];
/* The newest image of that name; false when there is none. */
bool base_newest(const char *state, const char *name, char id[BASE_ID]);
bool base_exists(const char *state, const char *id);
int base_record_read(const char *state, const char *id, struct buf *out, struct err *err);
/* The base comes into being. Its volume is there and durable. */
int base_record_write(const char *state, const char *id, const struct buf *record, struct err *err);
/* BASE_HOST when nothing else was chosen. */
void base_default(const char *state, char name[BASE_NAME_MAX + 1]);
int base_default_set(const char *state, const char *name, struct err *err);
/* The record first, then the image. Nobody may use it. 0 also when it is not there. */
int base_remove(const struct volumes *v, const char *state, const char *id, struct err *err);
/* Images without a record, and what a killed `base create` has left. Only under base_lock(). */
void base_sweep(const struct volumes *v, const char *state);
/* One base is made at a time: a descriptor to be closed, or -1 (EBUSY: somebody else does). Makes STATE/bases. */
int base_lock(const char *state, struct err *err);

#endif
