/* See base.h. */
#include "sandbox/base.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/frame.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/spec.h"

#define RECORD ".json"
#define RECORD_MAX 65536
#define VERSION 14
#define DEFAULT "default"

bool base_name_ok(const char *name)
{
	return sandbox_name_ok(name) && strlen(name) <= BASE_NAME_MAX && strcmp(name, BASE_HOST) != 0 &&
	       strcmp(name, DEFAULT) != 0;
}

bool base_id_split(const char *id, char name[BASE_NAME_MAX + 1])
{
	const char *dash = strrchr(id, '-');
	char text[BASE_NAME_MAX + 1];

	if (!dash || dash - id > BASE_NAME_MAX || strlen(dash + 1) != VERSION ||
	    strspn(dash + 1, "0123456789") != VERSION)
		return false;
	snprintf(text, sizeof text, "%.*s", (int)(dash - id), id);
	if (!base_name_ok(text))
		return false;
	if (name)
		memcpy(name, text, sizeof text);
	return true;
}

char *base_volume(const char *id)
{
	return xasprintf(BASE_PREFIX "%s", id);
}

static int open_bases(const char *state)
{
	cleanup_free char *path = xasprintf("%s/" STATE_BASES, state);

	return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static void record_name(const char *id, char out[BASE_ID + 8])
{
	snprintf(out, BASE_ID + 8, "%.*s" RECORD, BASE_ID - 1, id);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(a, b);
}

char (*base_list(const char *state, size_t *n))[BASE_ID]
{
	int fd = open_bases(state);
	cleanup_dir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	char(*ids)[BASE_ID] = NULL;
	struct dirent *e;

	*n = 0;
	while (d && (e = readdir(d)) != NULL) {
		size_t len = strlen(e->d_name), end = strlen(RECORD);
		char id[BASE_ID];

		if (len <= end || len - end >= BASE_ID || strcmp(e->d_name + len - end, RECORD) != 0)
			continue;
		snprintf(id, sizeof id, "%.*s", (int)(len - end), e->d_name);
		if (!base_id_split(id, NULL))
			continue;
		ids = xreallocarray(ids, *n + 1, sizeof *ids);
		memcpy(ids[(*n)++], id, sizeof id);
	}
	if (ids)
		qsort(ids, *n, sizeof *ids, by_text);
	return ids;
}

bool base_newest(const char *state, const char *name, char id[BASE_ID])
{
	size_t n;
	cleanup_free void *list = base_list(state, &n);
	char(*ids)[BASE_ID] = list;
	bool found = false;

	for (size_t i = 0; i < n; i++) {
		char of[BASE_NAME_MAX + 1];

		if (base_id_split(ids[i], of) && strcmp(of, name) == 0) {
			memcpy(id, ids[i], BASE_ID);
			found = true;
		}
	}
	return found;
}

void base_id_new(const char *state, const char *name, char id[BASE_ID])
{
	time_t now = time(NULL);
	struct tm tm;
	char last[BASE_ID], text[VERSION + 1];
	unsigned long long version;

	gmtime_r(&now, &tm);
	strftime(text, sizeof text, "%Y%m%d%H%M%S", &tm);
	version = strtoull(text, NULL, 10);
	if (base_newest(state, name, last)) { /* also when the clock was set back */
		unsigned long long before = strtoull(last + strlen(last) - VERSION, NULL, 10);
		version = version > before ? version : before + 1;
	}
	snprintf(id, BASE_ID, "%.*s-%0*llu", BASE_NAME_MAX, name, VERSION, version);
}

bool base_exists(const char *state, const char *id)
{
	cleanup_close int dir = open_bases(state);
	char file[BASE_ID + 8];

	record_name(id, file);
	return base_id_split(id, NULL) && dir >= 0 && faccessat(dir, file, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int base_record_read(const char *state, const char *id, struct buf *out, struct err *err)
{
	cleanup_close int dir = open_bases(state);
	char file[BASE_ID + 8];

	if (!base_id_split(id, NULL))
		return err_text(err, EINVAL, "`%.80s` is no id of a base", id);
	record_name(id, file);
	int r = dir < 0 ? -errno : io_read_file(dir, file, RECORD_MAX, out);
	return r < 0 ? err_set(err, -r, "base %s", id) : 0;
}

int base_record_write(const char *state, const char *id, const struct buf *record, struct err *err)
{
	cleanup_close int dir = open_bases(state);
	char file[BASE_ID + 8];

	record_name(id, file);
	int r = dir < 0 ? -errno : io_write_file(dir, file, record->data, record->len, 0644);
	if (r == 0 && fsync(dir) < 0)
		r = -errno;
	return r < 0 ? err_set(err, -r, "record of base %s", id) : 0;
}

void base_default(const char *state, char name[BASE_NAME_MAX + 1])
{
	cleanup_close int dir = open_bases(state);
	cleanup_buf struct buf text = BUF_INIT;

	snprintf(name, BASE_NAME_MAX + 1, BASE_HOST);
	if (dir < 0 || io_read_file(dir, DEFAULT, BASE_NAME_MAX + 1, &text) < 0 || !text.len)
		return;
	text.data[strcspn(text.data, "\n")] = '\0';
	if (base_name_ok(text.data))
		snprintf(name, BASE_NAME_MAX + 1, "%s", text.data);
}

int base_default_set(const char *state, const char *name, struct err *err)
{
	cleanup_free char *line = xasprintf("%s\n", name);
	cleanup_close int dir = open_bases(state);
	int r = dir < 0 ? -errno : io_write_file(dir, DEFAULT, line, strlen(line), 0644);

	return r < 0 ? err_set(err, -r, "`%s/" STATE_BASES "/" DEFAULT "`", state) : 0;
}

int base_remove(const struct volumes *v, const char *state, const char *id, struct err *err)
{
	cleanup_close int dir = open_bases(state);
	cleanup_free char *volume = base_volume(id);
	char file[BASE_ID + 8];

	record_name(id, file);
	if (dir >= 0 && unlinkat(dir, file, 0) < 0 && errno != ENOENT)
		return err_set(err, errno, "record of base %s", id);
	return volume_remove(v, volume, err);
}

void base_sweep(const struct volumes *v, const char *state)
{
	cleanup_buf struct buf list = BUF_INIT;
	uint32_t n = volume_list(v, &list);
	struct reader r = reader_of(list.data, list.len);

	volume_remove(v, BASE_MAKING, NULL);
	for (uint32_t i = 0; i < n; i++) {
		char name[SANDBOX_NAME_MAX + 1];
		struct err err = ERR_INIT;

		get_str(&r, name, sizeof name);
		get_u64(&r);
		if (r.bad || strncmp(name, BASE_PREFIX, strlen(BASE_PREFIX)) != 0)
			continue;
		const char *id = name + strlen(BASE_PREFIX);
		if (base_id_split(id, NULL) && !base_exists(state, id) && volume_remove(v, name, &err) < 0)
			log_warn("%s", err.msg);
	}
}

int base_lock(const char *state, struct err *err)
{
	cleanup_free char *path = xasprintf("%s/" STATE_BASES, state);
	cleanup_close int dir = -1;
	int r = io_mkdir(AT_FDCWD, path, 0755);

	if (r < 0)
		return err_set(err, -r, "make `%s`", path);
	dir = open_bases(state);
	if (dir < 0)
		return err_set(err, errno, "open `%s`", path);
	if (flock(dir, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? err_text(err, EBUSY, "another base is being made in `%s`", path)
					    : err_set(err, errno, "lock `%s`", path);
	return steal_fd(&dir);
}
