/* See log_position.h. */
#include "spaced/api/log_position.h"

#include <string.h>

#define DIGITS_MAX 18

static bool number(const char *s, size_t n, uint64_t *out)
{
	uint64_t v = 0;

	if (n == 0 || n > DIGITS_MAX || (n > 1 && *s == '0'))
		return false;
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(s[i] - '0');
	}
	*out = v;
	return true;
}

static bool name_ok(const char *s, size_t n)
{
	if (n > LOG_NAME_MAX)
		return false;
	for (size_t i = 0; i < n; i++)
		if (s[i] != '-' && !(s[i] >= '0' && s[i] <= '9') && !(s[i] >= 'a' && s[i] <= 'z'))
			return false;
	return true;
}

bool log_position_parse(struct str text, struct log_position *p)
{
	const char *colon = text.n ? memchr(text.p, ':', text.n) : NULL;
	size_t n = colon ? (size_t)(colon - text.p) : 0;

	*p = (struct log_position){0};
	if (!colon || !name_ok(text.p, n) || !number(colon + 1, text.n - n - 1, &p->offset))
		return false;
	memcpy(p->name, text.p, n);
	return true;
}

void log_position_add(struct buf *b, const char *path, uint64_t offset)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	buf_add(b, name, strcspn(name, "."));
	buf_addf(b, ":%llu", (unsigned long long)offset);
}

bool log_position_run(const struct log_position *p, const char *space_id, uint32_t *generation)
{
	size_t n = strlen(space_id);
	uint64_t v;

	if (strncmp(p->name, "run-", 4) != 0 || strncmp(p->name + 4, space_id, n) != 0 || p->name[4 + n] != '-' ||
	    !number(p->name + 5 + n, strlen(p->name + 5 + n), &v) || v > UINT32_MAX)
		return false;
	*generation = (uint32_t)v;
	return true;
}

bool log_position_build(const struct log_position *p, char id[STORE_ID])
{
	if (strncmp(p->name, "build-", 6) != 0 || strlen(p->name + 6) >= STORE_ID)
		return false;
	memcpy(id, p->name + 6, strlen(p->name + 6) + 1);
	return true;
}
