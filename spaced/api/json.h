/* The JSON shapes of the API, made from records. Pure; where Hugging Face has a shape, this is it. */
#ifndef SPACED_API_JSON_H
#define SPACED_API_JSON_H

#include <jansson.h>
#include <stdint.h>

#include "spaced/space/space.h"
#include "spaced/store/store.h"

/* "2026-01-02T03:04:05.678Z"; null for 0. */
json_t *json_date(uint64_t wall_ms);
/* A string, or null for NULL and "". */
json_t *json_text_or_null(const char *s);

/* What is not in the record. */
struct space_view {
	const char *public_url; /* of the apex; scheme and port of an app's URL come from it */
	const char *domain;
	const char *sha;	/* tip of the default branch; NULL: unknown */
	unsigned instances;	/* that answer requests */
	const char *serving;	/* commit that serves; NULL: none */
	uint32_t sleep_after_s; /* the host's, for a Space without its own; 0: never */
};
/* "http://alice-hello.example.org:7000"; malloc'd. */
char *json_app_url(const struct space_view *v, const char *label);
/* The same for a whole host name. */
char *json_host_url(const struct space_view *v, const char *host);
/* Bytes of Hugging Face's tier "small", "medium" or "large"; 0: no such one. */
uint64_t json_storage_bytes(const char *tier);
json_t *json_runtime(const struct space *sp, const struct space_view *v);
json_t *json_space(const struct space *sp, const struct space_view *v);
/* Only `id` and the asked fields stay. False (and *bad) for a name that is no field. */
bool json_space_expand(json_t *space, const char *const *fields, size_t n, const char **bad);
extern const char json_space_fields[]; /* "author, cardData, ..." for the message about it */

json_t *json_user(const struct user *u);
json_t *json_whoami(const struct user *u, const char *endpoint);
json_t *json_token(const struct token *t, const char *user);
json_t *json_build(const struct build *b, const char *space, unsigned position);
json_t *json_release(const struct release *r, bool current);
json_t *json_event(const struct event *e);
/* The fields of a live instance, for spacectl. */
json_t *json_live(const struct space_live *l);

#endif
