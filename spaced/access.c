/* See access.h. */
#include "spaced/access.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"

#define KEY_FILE "access.key"
#define DAY 86400
#define CHECK_MS 60000

struct access_keys {
	uv_timer_t timer;
	struct router *router;
	char *dir;
	bool secure;
	char sign_in[300];
	uint64_t day; /* that the proxies know */
	/* The first half is for Spaces and changes; the second is for sessions of the apex. */
	unsigned char secret[2 * TICKET_KEY];
};

static void derive(const unsigned char secret[TICKET_KEY], uint64_t day, struct ticket_key *out)
{
	char text[40];

	snprintf(text, sizeof text, "spaced tickets %llu", (unsigned long long)day);
	crypto_generichash(out->key, TICKET_KEY, (const unsigned char *)text, strlen(text), secret, TICKET_KEY);
	out->id = (uint32_t)day;
}

static uint64_t now_seconds(void)
{
	return io_wall_ms() / 1000;
}

static void publish(struct access_keys *k)
{
	struct ticket_keys keys = {.secure = k->secure, .nkeys = 2};

	k->day = now_seconds() / DAY;
	snprintf(keys.sign_in, sizeof keys.sign_in, "%s", k->sign_in);
	derive(k->secret, k->day, &keys.keys[0]);
	derive(k->secret, k->day - 1, &keys.keys[1]);
	router_set_keys(k->router, &keys);
	sodium_memzero(&keys, sizeof keys);
}

static void on_timer(uv_timer_t *t)
{
	struct access_keys *k = t->data;

	if (now_seconds() / DAY != k->day)
		publish(k);
}

static int save(struct access_keys *k, struct err *err)
{
	cleanup_close int dir = open(k->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = dir < 0 ? -errno : io_write_file(dir, KEY_FILE, k->secret, sizeof k->secret, 0600);

	return r < 0 ? err_set(err, -r, "write %s", KEY_FILE) : 0;
}

static int load(struct access_keys *k, struct err *err)
{
	cleanup_free char *path = xasprintf("%s/%s", k->dir, KEY_FILE);
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd < 0 && errno == ENOENT) {
		randombytes_buf(k->secret, sizeof k->secret);
		return save(k, err);
	}
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, errno, "open %s", KEY_FILE);
	if (!S_ISREG(st.st_mode) || st.st_size != sizeof k->secret || (st.st_mode & 077))
		return err_text(err, EINVAL,
				"%s is damaged or can be read by others: delete it (everyone signs in again)", path);
	int r = io_read_full(fd, k->secret, sizeof k->secret);
	return r < 0 ? err_set(err, -r, "read %s", KEY_FILE) : 0;
}

struct access_keys *access_keys_new(uv_loop_t *loop, const struct config *config, struct router *router,
				    struct err *err)
{
	struct access_keys *k = xcalloc(1, sizeof *k);

	k->router = router;
	k->dir = xasprintf("%s/%s", config->state, STATE_CONTROL);
	k->secure = strncmp(config->public_url, "https://", 8) == 0;
	snprintf(k->sign_in, sizeof k->sign_in, "%.250s/sign-in", config->public_url);
	uv_timer_init(loop, &k->timer);
	k->timer.data = k;
	if (load(k, err) < 0) {
		access_keys_free(k);
		return NULL;
	}
	publish(k);
	uv_timer_start(&k->timer, on_timer, CHECK_MS, CHECK_MS);
	return k;
}

static void on_closed(uv_handle_t *h)
{
	struct access_keys *k = h->data;

	sodium_memzero(k->secret, sizeof k->secret);
	free(k->dir);
	free(k);
}

void access_keys_free(struct access_keys *k)
{
	if (k)
		uv_close((uv_handle_t *)&k->timer, on_closed);
}

int access_keys_renew(struct access_keys *k, struct err *err)
{
	randombytes_buf(k->secret, TICKET_KEY);
	publish(k); /* also when it cannot be saved: what is revoked is revoked now */
	return save(k, err);
}

void access_expel(struct access_keys *k, const char *user_id)
{
	router_expel(k->router, user_id);
}

void access_ticket_make(const struct access_keys *k, enum ticket_kind kind, const char *subject, const char *user,
			unsigned seconds, char out[TICKET_TEXT])
{
	uint64_t now = now_seconds();
	struct ticket t = {.kind = kind, .expires = now + seconds};
	struct ticket_key key;

	snprintf(t.subject, sizeof t.subject, "%s", subject);
	snprintf(t.user, sizeof t.user, "%s", user);
	derive(kind == TICKET_SESSION ? k->secret + TICKET_KEY : k->secret, now / DAY, &key);
	ticket_make(&t, &key, out);
	sodium_memzero(&key, sizeof key);
}

bool access_session_read(const struct access_keys *k, struct str text, struct ticket *out)
{
	uint64_t now = now_seconds();
	struct ticket_key keys[2];

	derive(k->secret + TICKET_KEY, now / DAY, &keys[0]);
	derive(k->secret + TICKET_KEY, now / DAY - 1, &keys[1]);
	bool ok = ticket_read(text, TICKET_SESSION, keys, 2, now, out);
	sodium_memzero(keys, sizeof keys);
	return ok;
}

bool access_secure(const struct access_keys *k)
{
	return k->secure;
}
