/* See ids.h. Sources: user_namespaces(7), subuid(5), newuidmap(1). */
#include "sandbox/ids.h"

#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"

#define MAP_MAX (64U << 10)
#define SUBID_MAX (4U << 20)
#define ALL_UNTIL 0x7fffffffU /* a host, or a container that gives as much: every range that the daemon may choose */

static int kind = -1;

/* Whether the lines "inside outside count" cover first..last without a gap. */
static bool covers(const char *map, uint64_t first, uint64_t last)
{
	bool found = true;

	while (found && first <= last) {
		found = false;
		for (const char *p = map; *p; p += strcspn(p, "\n"), p += *p == '\n') {
			unsigned long long inside, count;

			if (sscanf(p, " %llu %*u %llu", &inside, &count) == 2 && first >= inside &&
			    first < inside + count) {
				first = inside + count;
				found = true;
			}
		}
	}
	return found;
}

enum ids_kind ids_kind_of(const char *map)
{
	if (covers(map, 0, ALL_UNTIL))
		return IDS_ALL;
	return covers(map, IDS_FIRST, IDS_FIRST + IDS_COUNT - 1) ? IDS_RANGE : IDS_ONE;
}

static enum ids_kind kind_in(const char *path)
{
	cleanup_buf struct buf text = BUF_INIT;

	/* A kernel without user namespaces has no such file, and all ids. */
	return io_read_file(AT_FDCWD, path, MAP_MAX, &text) < 0 ? IDS_ALL : ids_kind_of(text.data ? text.data : "");
}

enum ids_kind ids_kind(void)
{
	if (kind < 0) {
		enum ids_kind u = kind_in("/proc/self/uid_map"), g = kind_in("/proc/self/gid_map");

		kind = (int)(u > g ? u : g);
	}
	return (enum ids_kind)kind;
}

void ids_forget(void)
{
	kind = -1;
}

bool ids_host_root(void)
{
	return geteuid() == 0 && ids_kind() == IDS_ALL;
}

uint32_t ids_base(uint32_t wanted)
{
	switch (ids_kind()) {
	case IDS_ALL:
		return wanted;
	case IDS_RANGE:
		return IDS_BASE;
	default:
		return 0;
	}
}

/* "alice:100000:65536" or "1000:100000:65536". */
static bool lent_line(const char *line, uid_t uid, const char *name, struct ids_lent *out)
{
	char who[256], number[16];
	unsigned long long first, count;

	if (sscanf(line, "%255[^:\n]:%llu:%llu", who, &first, &count) != 3 || first + count > UINT32_MAX || first == 0)
		return false;
	snprintf(number, sizeof number, "%u", uid);
	if (strcmp(who, number) != 0 && !(name && strcmp(who, name) == 0))
		return false;
	*out = (struct ids_lent){(uint32_t)first, (uint32_t)count};
	return true;
}

bool ids_lent_parse(const char *text, uid_t uid, const char *name, struct ids_lent *out)
{
	*out = (struct ids_lent){0};
	for (const char *p = text; *p; p += strcspn(p, "\n"), p += *p == '\n') {
		struct ids_lent l;

		if (lent_line(p, uid, name, &l) && l.count > out->count)
			*out = l;
	}
	if (out->count > 1U << 30)
		out->count = 1U << 30; /* the namespace counts them from IDS_FIRST on */
	return out->count >= IDS_COUNT;
}

bool ids_lent(const char *file, uid_t uid, const char *name, struct ids_lent *out)
{
	cleanup_buf struct buf text = BUF_INIT;

	*out = (struct ids_lent){0};
	return io_read_file(AT_FDCWD, file, SUBID_MAX, &text) == 0 && text.data &&
	       ids_lent_parse(text.data, uid, name, out);
}

bool ids_range_possible(struct ids_lent *uids, struct ids_lent *gids)
{
	const struct passwd *pw = getpwuid(getuid());
	cleanup_free char *name = pw ? xstrdup(pw->pw_name) : NULL;

	/* newuidmap(1) serves nobody without an account */
	return name && ids_lent("/etc/subuid", getuid(), name, uids) && ids_lent("/etc/subgid", getuid(), name, gids) &&
	       access("/usr/bin/newuidmap", X_OK) == 0 && access("/usr/bin/newgidmap", X_OK) == 0;
}
