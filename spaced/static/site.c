/* See site.h. */
#include "spaced/static/site.h"

#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <uthash.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/resolve.h"
#include "spaced/static/path.h"

#define SITE_JSON_MAX (64U * 1024)
#define SITE_HEADERS_MAX 32
#define SITE_CACHE_MAX 256

struct entry {
	char id[65];
	ino_t ino;
	struct timespec mtime;
	struct site *site;
	UT_hash_handle hh;
};
static struct entry *cache; /* oldest use first */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Fields that frame the message or that this role decides itself. */
static const char *const reserved[] = {
    "Connection", "Content-Encoding",  "Content-Length", "Content-Range", "Content-Type", "Date",    "ETag",
    "Keep-Alive", "Transfer-Encoding", "Last-Modified",	 "Trailer",	  "Upgrade",	  "Location"};

static bool header_ok(const char *name, const char *value)
{
	static const char token[] = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

	if (!*name || name[strspn(name, token)] || strlen(name) > 100 || strlen(value) > 4000)
		return false;
	for (const char *p = value; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return false;
	for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
		if (strcasecmp(name, reserved[i]) == 0)
			return false;
	return true;
}

static void parse_headers(struct site *s, json_t *headers)
{
	const char *name;
	json_t *value;

	json_object_foreach(headers, name, value)
	{
		const char *text = json_string_value(value);
		if (!text || !header_ok(name, text) || s->nheaders == SITE_HEADERS_MAX)
			continue;
		s->headers = xreallocarray(s->headers, s->nheaders + 1, sizeof *s->headers);
		s->headers[s->nheaders++] = (struct site_field){xstrdup(name), xstrdup(text)};
		if (strcasecmp(name, "Cache-Control") == 0)
			s->own_cache_control = true;
	}
}

static char *path_of(json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text && *text && site_path_ok(text) ? xstrdup(text) : NULL;
}

struct site *site_parse(const char *text, size_t n)
{
	struct site *s = xcalloc(1, sizeof *s);
	json_t *json = json_loadb(text, n, 0, NULL);

	s->refs = 1;
	s->root = path_of(json, "root");
	s->index = path_of(json, "index");
	s->redirect = path_of(json, "redirect");
	parse_headers(s, json_object_get(json, "headers"));
	if (!s->root)
		s->root = xstrdup("");
	if (!s->index)
		s->index = xstrdup("index.html");
	json_decref(json);
	return s;
}

static void site_free(struct site *s)
{
	for (size_t i = 0; i < s->nheaders; i++) {
		free(s->headers[i].name);
		free(s->headers[i].value);
	}
	free(s->headers);
	free(s->root);
	free(s->index);
	free(s->redirect);
	free(s);
}

static void unref_locked(struct site *s)
{
	if (--s->refs == 0)
		site_free(s);
}

void site_put(struct site *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&lock);
	unref_locked(s);
	pthread_mutex_unlock(&lock);
}

static void drop_locked(struct entry *e)
{
	HASH_DEL(cache, e);
	unref_locked(e->site);
	free(e);
}

/* A site folder never changes, but one of the same name may take its place: the file's inode and time tell. */
static struct site *cached(const char *id, const struct stat *st)
{
	struct site *found = NULL;
	struct entry *e;

	pthread_mutex_lock(&lock);
	HASH_FIND_STR(cache, id, e);
	if (e && (e->ino != st->st_ino || e->mtime.tv_sec != st->st_mtim.tv_sec ||
		  e->mtime.tv_nsec != st->st_mtim.tv_nsec)) {
		drop_locked(e);
		e = NULL;
	}
	if (e) { /* to the young end */
		HASH_DEL(cache, e);
		HASH_ADD_STR(cache, id, e);
		found = e->site;
		found->refs++;
	}
	pthread_mutex_unlock(&lock);
	return found;
}

static void remember(const char *id, const struct stat *st, struct site *s)
{
	struct entry *e, *old;

	pthread_mutex_lock(&lock);
	HASH_FIND_STR(cache, id, old);
	if (old)
		drop_locked(old);
	while (HASH_COUNT(cache) >= SITE_CACHE_MAX)
		drop_locked(cache);
	e = xcalloc(1, sizeof *e);
	memcpy(e->id, id, strlen(id) + 1);
	e->ino = st->st_ino;
	e->mtime = st->st_mtim;
	e->site = s;
	s->refs++;
	HASH_ADD_STR(cache, id, e);
	pthread_mutex_unlock(&lock);
}

struct site *site_get(int sites_fd, const char *id)
{
	cleanup_free char *path = xasprintf("%s/site.json", id);
	cleanup_close int fd = resolve_beneath(sites_fd, path, O_RDONLY);
	cleanup_buf struct buf text = BUF_INIT;
	struct stat st;

	if (!site_id_ok(STRZ(id)) || fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > SITE_JSON_MAX)
		return NULL;
	struct site *s = cached(id, &st);
	if (s)
		return s;
	buf_reserve(&text, (size_t)st.st_size);
	if (io_read_full(fd, text.data, (size_t)st.st_size) < 0)
		return NULL;
	s = site_parse(text.data, (size_t)st.st_size);
	remember(id, &st, s);
	return s;
}

void site_cache_clear(void)
{
	pthread_mutex_lock(&lock);
	while (cache)
		drop_locked(cache);
	pthread_mutex_unlock(&lock);
}
