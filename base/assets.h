/* Files carried in the binary (schema/, web/), put there by scripts/embed. */
#ifndef BASE_ASSETS_H
#define BASE_ASSETS_H

#include <stddef.h>

struct asset {
	const char *name; /* path in the source tree: "schema/0001_init.sql" */
	const char *data; /* NUL behind the last byte */
	size_t size;
};

/* Ended by .name == NULL, sorted by name. */
extern const struct asset asset_table[];

#endif
