/* Who is behind a request, and whether git may act for them. Called by the dispatcher (api.c) and by the git server. */
#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "spaced/api/api_int.h"

#define BAD_CREDENTIALS "Invalid credentials in Authorization header" /* clients compare this text */

/* "Bearer X" or "Basic base64(any:X)": X into `secret`. */
static bool read_secret(struct str v, char *secret, size_t size, bool *basic)
{
	unsigned char plain[512];
	const char *from;
	size_t n;

	*basic = v.n > 6 && !strncasecmp(v.p, "Basic ", 6);
	if (*basic) {
		for (v.p += 6, v.n -= 6; v.n && *v.p == ' '; v.p++)
			v.n--;
		if (sodium_base642bin(plain, sizeof(plain), v.p, v.n, NULL, &n, NULL, sodium_base64_VARIANT_ORIGINAL) !=
		    0)
			return false;
		const unsigned char *colon = memchr(plain, ':', n);
		if (!colon)
			return false;
		from = (const char *)colon + 1;
		n -= (size_t)(colon + 1 - plain);
	} else {
		if (v.n <= 7 || strncasecmp(v.p, "Bearer ", 7) != 0)
			return false;
		from = v.p + 7;
		n = v.n - 7;
	}
	bool ok = n > 0 && n < size && !memchr(from, '\0', n);
	if (ok) {
		memcpy(secret, from, n);
		secret[n] = '\0';
	}
	sodium_memzero(plain, sizeof(plain));
	return ok;
}

static int identify(struct store *store, struct http_req *r, struct user *out, bool *basic, struct err *err)
{
	uid_t uid = http_peer_uid(r);
	char secret[128];
	struct str v;
	int rc = -1;

	*basic = false;
	if (http_header(r, "Authorization", &v)) {
		if (read_secret(v, secret, sizeof(secret), basic))
			rc = store_token_check(store, secret, out, err);
		else
			err_text(err, ENOENT, "malformed");
		sodium_memzero(secret, sizeof(secret));
		if (rc < 0 && err->code == ENOENT)
			return err_text(err, EACCES, BAD_CREDENTIALS);
		return rc;
	}
	/* The kernel says who it is; the daemon's own account may act too (rootless). */
	if (uid != (uid_t)-1 && (uid == 0 || uid == geteuid())) {
		*out = (struct user){.name = xstrdup("root"), .admin = true};
		return 0;
	}
	return err_text(err, ENOENT, "no token was given");
}

int api_identify(struct store *store, struct http_req *r, struct user *out, struct err *err)
{
	bool basic;

	return identify(store, r, out, &basic, err);
}

/* identify() with the limiter before and behind it; `wait` is not 0 when the caller must slow down. */
static int identify_limited(struct api *a, struct http_req *r, struct user *out, bool *basic, unsigned *wait,
			    struct err *err)
{
	struct str v = STR("");
	uint64_t now = io_now_ms();
	int rc;

	*wait = 0;
	*basic = false;
	if (http_header(r, "Authorization", &v) && limiter_known_bad(&a->limiter, v, now)) {
		*basic = v.n > 6 && !strncasecmp(v.p, "Basic ", 6);
		rc = err_text(err, EACCES, BAD_CREDENTIALS);
	} else {
		rc = identify(a->parts.store, r, out, basic, err);
	}
	if (rc < 0 && err->code == EACCES)
		*wait = limiter_bad(&a->limiter, http_client(r), v, now);
	return rc;
}

/* A browser that knows Basic credentials sends them with any request, also one that an app below our own domain makes it
 * send (same site, so cookies' rules do not help). What changes something must come from our own pages. */
static bool forged(struct call *c)
{
	struct str origin, method = http_method(c->r), host = http_host(c->r);

	if (!c->basic || str_eq(method, "GET") || str_eq(method, "HEAD") || !http_header(c->r, "Origin", &origin))
		return false;
	const char *sep = memmem(origin.p, origin.n, "://", 3);
	if (!sep)
		return true;
	size_t n = origin.n - (size_t)(sep + 3 - origin.p);
	return n != host.n || strncasecmp(sep + 3, host.p, n) != 0;
}

bool call_authenticate(struct call *c)
{
	struct err err = ERR_INIT;
	unsigned wait;

	if (identify_limited(c->a, c->r, &c->me, &c->basic, &wait, &err) == 0) {
		c->known = true;
		if (forged(c)) {
			call_error(c, 403, NULL, "a request from another site with Basic credentials is refused");
			return false;
		}
		return true;
	}
	if (err.code == ENOENT) {
		call_session(c);
		return true;
	}
	if (err.code != EACCES) {
		call_fail(c, &err);
	} else if (wait) {
		http_set_header(c->r, "Retry-After", "%u", wait);
		call_error(c, 429, NULL, "too many wrong tokens from your address; try again in %u seconds", wait);
	} else {
		if (c->basic)
			http_set_header(c->r, "WWW-Authenticate",
					"Basic realm=\"Spaced: any user name, a token as password\"");
		call_error(c, 401, NULL, "%s", BAD_CREDENTIALS);
	}
	return false;
}

/* ---- git ---- */

static void target(struct git_target *out, const struct space *sp, const struct user *me, bool known)
{
	if (sp) {
		snprintf(out->repo, sizeof(out->repo), "%.24s.git", sp->id);
		out->space_id = xstrdup(sp->id);
	}
	out->user_id = xstrdup(known ? me->id : "");
}

static enum git_access refuse(char reason[256], const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static enum git_access refuse(char reason[256], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(reason, 256, fmt, ap);
	va_end(ap);
	return GIT_FORBIDDEN;
}

static enum git_access may_read(const struct call *c, const struct space *sp, struct git_target *out)
{
	if (sp && sp->stage != STAGE_DELETING && call_may_read(c, sp)) {
		target(out, sp, &c->me, c->known);
		return GIT_ALLOWED;
	}
	/* Not told apart from one that does not exist. */
	return c->known ? GIT_NOT_FOUND : GIT_ASK;
}

/* A push to a Space that does not exist: made in the pusher's own namespace, with `commit`. */
static enum git_access may_begin(struct call *c, const char *owner, const char *name, bool commit,
				 struct git_target *out, char reason[256])
{
	struct err err = ERR_INIT;
	struct space made;

	if (strcasecmp(c->me.name, owner) != 0)
		return refuse(reason, "%s may not write to %s/%s", c->me.name, owner, name);
	if (!commit) {
		if (api_space_can_create(c->a, &c->me, name, &err) < 0)
			return refuse(reason, "%s", err.msg);
		target(out, NULL, &c->me, true);
		return GIT_ALLOWED;
	}
	if (api_space_create(c->a, &c->me, name, SPACE_PUBLIC, "", &made, &err) < 0)
		return refuse(reason, "cannot create %s/%s: %.200s", owner, name, err.msg);
	target(out, &made, &c->me, true);
	space_release(&made);
	return GIT_ALLOWED;
}

static enum git_access may_write(struct call *c, const struct space *sp, const char *owner, const char *name,
				 bool commit, struct git_target *out, char reason[256])
{
	if (!c->known)
		return GIT_ASK;
	if (!sp)
		return may_begin(c, owner, name, commit, out, reason);
	/* The same words as for one that does not exist in a foreign namespace. */
	if (!call_may_write(c, sp))
		return refuse(reason, "%s may not write to %s/%s", c->me.name, owner, name);
	if (sp->stage == STAGE_DELETING)
		return refuse(reason, "%s/%s is being deleted; push again in a moment", owner, name);
	target(out, sp, &c->me, true);
	return GIT_ALLOWED;
}

enum git_access api_git_authorise(void *ctx, struct http_req *r, const char *owner, const char *name, bool write,
				  bool commit, struct git_target *out, char reason[256])
{
	struct call c = {.a = ctx, .r = r};
	struct err err = ERR_INIT;
	struct space sp = {0};
	enum git_access result;
	unsigned wait;

	*out = (struct git_target){0};
	reason[0] = '\0';
	if (identify_limited(c.a, r, &c.me, &c.basic, &wait, &err) == 0)
		c.known = true;
	else if (err.code == EACCES)
		return wait ? refuse(reason, "too many wrong tokens from your address; try again in %u seconds", wait)
			    : GIT_ASK;
	else if (err.code != ENOENT)
		return refuse(reason, "the server cannot check tokens now: %.200s", err.msg);

	bool found = store_space_by_name(c.a->parts.store, owner, name, &sp, &err) == 0;
	if (!found && err.code != ENOENT)
		result = refuse(reason, "the server cannot look up %s/%s now: %.150s", owner, name, err.msg);
	else if (write)
		result = may_write(&c, found ? &sp : NULL, owner, name, commit, out, reason);
	else
		result = may_read(&c, found ? &sp : NULL, out);
	if (found)
		space_release(&sp);
	user_release(&c.me);
	return result;
}
