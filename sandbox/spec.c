/* The spec: checking it, and its wire form between control and spawner. Pure; looks at nothing outside itself.
 * Called by everybody who starts a sandbox. */
#include "sandbox/spec.h"

#include <errno.h>

#include "sandbox/egress_list.h"

#define PATH_BYTES 4096
#define STRING_BYTES (128U * 1024 - 1) /* one argument or environment entry: MAX_ARG_STRLEN, execve(2) */
#define LIST_ENTRIES (256U * 1024)     /* what execve(2) takes in all is 2 MiB, mostly, with 8 bytes for each */
#define EGRESS_ENTRIES 1024U
#define HOSTNAME_BYTES 64 /* __NEW_UTS_LEN, uname(2) */
#define WIRE_VERSION 2

static void free_list(char **list)
{
	if (!list)
		return;
	for (char **p = list; *p; p++)
		free(*p);
	free(list);
}

void sandbox_spec_wipe(const struct sandbox_spec *s)
{
	for (char **e = s->env; e && *e; e++)
		explicit_bzero(*e, strlen(*e));
}

void sandbox_spec_release(struct sandbox_spec *s)
{
	sandbox_spec_wipe(s);
	free(s->base);
	for (size_t i = 0; i < s->nlayers; i++)
		free(s->layers[i]);
	free(s->top);
	for (size_t i = 0; i < s->nbinds; i++) {
		free(s->binds[i].volume);
		free(s->binds[i].source);
		free(s->binds[i].target);
	}
	free_list(s->argv);
	free_list(s->env);
	free_list(s->egress_list);
	free(s->cwd);
	free(s->hostname);
	*s = (struct sandbox_spec){0};
}

bool sandbox_name_ok(const char *name)
{
	size_t n = strlen(name);

	if (n == 0 || n > SANDBOX_NAME_MAX || name[0] == '-')
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

/* Absolute, and no component that is "", "." or "..": what the kernel resolves is what is written there. */
static bool path_ok(const char *path)
{
	if (path[0] != '/' || strlen(path) >= PATH_BYTES)
		return false;
	if (path[1] == '\0')
		return true;
	for (const char *p = path; *p == '/';) {
		size_t n = strcspn(++p, "/");

		if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p += n;
	}
	return true;
}

/* 0..2046 and nobody: what the range maps. Rootless maps exactly one id, whichever. */
static bool id_ok(uint32_t id)
{
	return id < SANDBOX_IDS - 1 || id == 65534;
}

static int check_bind(const struct sandbox_bind *b, struct err *err)
{
	if (!b->volume == !b->source)
		return err_set(err, EINVAL, "a bind needs either a volume or a source path");
	if (b->volume && !sandbox_name_ok(b->volume))
		return err_set(err, EINVAL, "bind: bad volume name `%.80s`", b->volume);
	if (b->source && !path_ok(b->source))
		return err_set(err, EINVAL, "bind: source `%.200s` is not a clean absolute path", b->source);
	if (!b->target || !path_ok(b->target) || !b->target[1])
		return err_set(err, EINVAL, "bind: target `%.200s` is not a clean absolute path",
			       b->target ? b->target : "");
	return 0;
}

static int check_list(char **list, const char *what, size_t most, struct err *err)
{
	size_t n = 0;

	for (; list && list[n]; n++)
		if (strlen(list[n]) > STRING_BYTES)
			return err_text(err, E2BIG, "one of the %s is longer than %u bytes", what, STRING_BYTES);
	if (n > most)
		return err_text(err, E2BIG, "%zu %s: at most %zu", n, what, most);
	return 0;
}

static int check_volumes(const struct sandbox_spec *s, struct err *err)
{
	if (s->base && !sandbox_name_ok(s->base))
		return err_set(err, EINVAL, "bad base name `%.80s`", s->base);
	if (s->nlayers > SANDBOX_MAX_LAYERS)
		return err_set(err, E2BIG, "%zu layers: at most %d", s->nlayers, SANDBOX_MAX_LAYERS);
	for (size_t i = 0; i < s->nlayers; i++)
		if (!s->layers[i] || !sandbox_name_ok(s->layers[i]))
			return err_set(err, EINVAL, "bad layer name `%.80s`", s->layers[i] ? s->layers[i] : "");
	if (s->top && !sandbox_name_ok(s->top))
		return err_set(err, EINVAL, "bad volume name `%.80s` for the writable layer", s->top);
	if (s->nbinds > SANDBOX_MAX_BINDS)
		return err_set(err, E2BIG, "%zu binds: at most %d", s->nbinds, SANDBOX_MAX_BINDS);
	for (size_t i = 0; i < s->nbinds; i++)
		if (check_bind(&s->binds[i], err) < 0)
			return -1;
	return 0;
}

static int check_limits(const struct sandbox_limits *l, struct err *err)
{
	if (l->memory && l->memory < SANDBOX_MEMORY_MIN)
		return err_text(err, ERANGE, "a memory limit of %llu bytes is too small: at least %u",
				(unsigned long long)l->memory, SANDBOX_MEMORY_MIN);
	if (l->pids && l->pids < SANDBOX_PIDS_MIN)
		return err_text(err, ERANGE,
				"a limit of %u processes is too small: at least %u, one is the sandbox's own", l->pids,
				SANDBOX_PIDS_MIN);
	if (l->io_bytes && l->io_bytes < SANDBOX_IO_MIN)
		return err_text(err, ERANGE, "an io limit of %llu bytes per second is too small: at least %u",
				(unsigned long long)l->io_bytes, SANDBOX_IO_MIN);
	return 0;
}

int sandbox_spec_check(const struct sandbox_spec *s, struct err *err)
{
	if (!sandbox_name_ok(s->name))
		return err_set(err, EINVAL, "bad sandbox name `%.80s`", s->name);
	if ((unsigned)s->profile > SANDBOX_BUILD_ROOT)
		return err_set(err, EINVAL, "unknown profile %u", (unsigned)s->profile);
	if ((unsigned)s->egress > EGRESS_LIST)
		return err_set(err, EINVAL, "unknown egress policy %u", (unsigned)s->egress);
	/* Never a range that touches the host's own users (login.defs: 0..65535 are theirs) or the ids' end. */
	if (s->id_base != 0 && (s->id_base < 65536 || s->id_base > UINT32_MAX - 1 - SANDBOX_IDS))
		return err_set(err, ERANGE, "id range %u is out of bounds", s->id_base);
	if (!id_ok(s->uid) || !id_ok(s->gid))
		return err_set(err, ERANGE, "uid %u, gid %u: only 0..%d and 65534 exist inside", s->uid, s->gid,
			       SANDBOX_IDS - 2);
	if (check_volumes(s, err) < 0)
		return -1;
	if (!s->argv || !s->argv[0] || !s->argv[0][0])
		return err_set(err, EINVAL, "no program to run");
	if (check_list(s->argv, "arguments", LIST_ENTRIES, err) < 0 ||
	    check_list(s->env, "environment variables", LIST_ENTRIES, err) < 0 ||
	    check_list(s->egress_list, "entries of the egress list", EGRESS_ENTRIES, err) < 0)
		return -1;
	for (char **e = s->egress_list; e && *e; e++) {
		struct egress_entry entry;
		if (egress_entry_parse(STRZ(*e), &entry, err) < 0)
			return -1;
	}
	for (char **e = s->env; e && *e; e++)
		if (!strchr(*e, '=') || **e == '=')
			return err_set(err, EINVAL, "an environment entry is not NAME=VALUE");
	if (check_limits(&s->limits, err) < 0)
		return -1;
	if (s->cwd && !path_ok(s->cwd))
		return err_set(err, EINVAL, "working folder `%.200s` is not a clean absolute path", s->cwd);
	if (s->hostname && (!s->hostname[0] || strlen(s->hostname) > HOSTNAME_BYTES))
		return err_set(err, EINVAL, "host name of %zu bytes", strlen(s->hostname));
	return 0;
}

static void put_list(struct buf *b, char **list)
{
	uint32_t n = 0;

	while (list && list[n])
		n++;
	put_u32(b, n);
	for (uint32_t i = 0; i < n; i++)
		put_str(b, list[i]);
}

void sandbox_spec_encode(const struct sandbox_spec *s, struct buf *b)
{
	put_u8(b, WIRE_VERSION);
	put_str(b, s->name);
	put_u8(b, (uint8_t)s->profile);
	put_u32(b, s->id_base);
	put_u32(b, s->uid);
	put_u32(b, s->gid);
	put_str(b, s->base);
	put_u32(b, (uint32_t)s->nlayers);
	for (size_t i = 0; i < s->nlayers; i++)
		put_str(b, s->layers[i]);
	put_str(b, s->top);
	put_u64(b, s->top_bytes);
	put_u32(b, (uint32_t)s->nbinds);
	for (size_t i = 0; i < s->nbinds; i++) {
		put_str(b, s->binds[i].volume);
		put_str(b, s->binds[i].source);
		put_str(b, s->binds[i].target);
		put_u8(b, s->binds[i].write);
	}
	put_list(b, s->argv);
	put_list(b, s->env);
	put_str(b, s->cwd);
	put_str(b, s->hostname);
	put_u8(b, (uint8_t)s->egress);
	put_list(b, s->egress_list);
	put_u64(b, s->limits.memory);
	put_u32(b, s->limits.cpu_milli);
	put_u32(b, s->limits.pids);
	put_u32(b, s->limits.nofile);
	put_u32(b, s->limits.timeout_s);
	put_u64(b, s->limits.log_bytes);
	put_u64(b, s->limits.io_bytes);
	put_u64(b, s->limits.bandwidth);
}

/* NULL travels as "". */
static char *get_opt(struct reader *r, size_t max)
{
	char *s = get_strdup(r, max);

	if (s && !*s) {
		free(s);
		s = NULL;
	}
	return s;
}

static char **get_list(struct reader *r)
{
	uint32_t n = get_u32(r);

	if (r->bad || n > LIST_ENTRIES) {
		r->bad = true;
		return NULL;
	}
	char **list = xcalloc((size_t)n + 1, sizeof *list);
	for (uint32_t i = 0; i < n && !r->bad; i++)
		list[i] = get_strdup(r, STRING_BYTES);
	return list;
}

static size_t get_count(struct reader *r, size_t max)
{
	uint32_t n = get_u32(r);

	if (n > max)
		r->bad = true;
	return r->bad ? 0 : n;
}

static void decode_volumes(struct reader *r, struct sandbox_spec *s)
{
	s->base = get_opt(r, SANDBOX_NAME_MAX);
	s->nlayers = get_count(r, SANDBOX_MAX_LAYERS);
	for (size_t i = 0; i < s->nlayers; i++)
		s->layers[i] = get_opt(r, SANDBOX_NAME_MAX);
	s->top = get_opt(r, SANDBOX_NAME_MAX);
	s->top_bytes = get_u64(r);
	s->nbinds = get_count(r, SANDBOX_MAX_BINDS);
	for (size_t i = 0; i < s->nbinds; i++) {
		s->binds[i].volume = get_opt(r, SANDBOX_NAME_MAX);
		s->binds[i].source = get_opt(r, PATH_BYTES);
		s->binds[i].target = get_opt(r, PATH_BYTES);
		s->binds[i].write = get_u8(r) != 0;
	}
}

int sandbox_spec_decode(struct reader *r, struct sandbox_spec *s, struct err *err)
{
	*s = (struct sandbox_spec){0};
	if (get_u8(r) != WIRE_VERSION) {
		r->bad = true;
		return err_set(err, EBADMSG, "sandbox spec of another version");
	}
	get_str(r, s->name, sizeof s->name);
	s->profile = (enum sandbox_profile)get_u8(r);
	s->id_base = get_u32(r);
	s->uid = get_u32(r);
	s->gid = get_u32(r);
	decode_volumes(r, s);
	s->argv = get_list(r);
	s->env = get_list(r);
	s->cwd = get_opt(r, PATH_BYTES);
	s->hostname = get_opt(r, HOSTNAME_BYTES);
	s->egress = (enum sandbox_egress)get_u8(r);
	s->egress_list = get_list(r);
	s->limits.memory = get_u64(r);
	s->limits.cpu_milli = get_u32(r);
	s->limits.pids = get_u32(r);
	s->limits.nofile = get_u32(r);
	s->limits.timeout_s = get_u32(r);
	s->limits.log_bytes = get_u64(r);
	s->limits.io_bytes = get_u64(r);
	s->limits.bandwidth = get_u64(r);
	if (r->bad || sandbox_spec_check(s, err) < 0) {
		if (r->bad)
			err_set(err, EBADMSG, "malformed sandbox spec");
		sandbox_spec_release(s);
		return -1;
	}
	return 0;
}

void sandbox_exit_encode(const struct sandbox_exit *e, struct buf *b)
{
	put_u32(b, (uint32_t)e->status);
	put_u8(b, e->oom);
	put_u8(b, e->timeout);
	put_u8(b, e->stopped);
	put_u64(b, e->log_dropped);
	put_u64(b, e->received);
	put_u64(b, e->sent);
	put_str(b, e->reason);
}

bool sandbox_exit_decode(struct reader *r, struct sandbox_exit *e)
{
	*e = (struct sandbox_exit){0};
	e->status = (int)get_u32(r);
	e->oom = get_u8(r) != 0;
	e->timeout = get_u8(r) != 0;
	e->stopped = get_u8(r) != 0;
	e->log_dropped = get_u64(r);
	e->received = get_u64(r);
	e->sent = get_u64(r);
	return get_str(r, e->reason, sizeof e->reason);
}
