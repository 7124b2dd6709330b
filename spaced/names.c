/* See names.h. Called wherever a name comes from outside: git paths, the API, spacectl. Pure. */
#include "spaced/names.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <strings.h>

/* ASCII only, whatever the locale: a look-alike letter in UTF-8 is never a letter here (battery H1). */
static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static char to_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* First path segments of the apex host, now or on the Hub whose clients we serve: never an account. */
static const char *const reserved[] = {
    "about",   "admin",	  "api",     "assets",	"auth",	  "blog",	"buckets", "collections",   "datasets",
    "docs",    "events",  "explore", "favicon", "git",	  "healthz",	"help",	   "internal",	    "join",
    "kernels", "login",	  "logout",  "metrics", "models", "new",	"oauth",   "organizations", "orgs",
    "posts",   "pricing", "robots",  "root",	"search", "settings",	"signup",  "spaced",	    "spaces",
    "static",  "status",  "support", "tasks",	"users",  "well-known", "www",
};

static bool is_reserved(const char *s)
{
	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
		if (!strcasecmp(s, reserved[i]))
			return true;
	return false;
}

/* 24 hex digits are an object id to clients of the Hub, so no account may look like one. */
static bool is_object_id(const char *s, size_t n)
{
	return n == 24 && strspn(s, "0123456789abcdefABCDEF") == n;
}

int name_check_user(const char *s, struct err *err)
{
	size_t n = strlen(s), digits = 0;

	if (n < 2 || n > NAME_USER_MAX)
		return err_text(err, EINVAL, "a user name has 2 to %d characters", NAME_USER_MAX);
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '-' && i > 0 && i + 1 < n && s[i - 1] != '-')
			continue;
		if (s[i] == '-')
			return err_text(err, EINVAL,
					"a user name has `-` only between letters or digits, one at a time");
		if (!is_alnum(s[i]))
			return err_text(err, EINVAL, "a user name has only letters A-Z, a-z, digits and `-`");
		digits += is_digit(s[i]);
	}
	if (digits == n)
		return err_text(err, EINVAL, "a user name is not digits alone");
	if (is_object_id(s, n))
		return err_text(err, EINVAL, "a user name is not 24 hex digits: that is how ids look");
	if (is_reserved(s))
		return err_text(err, EINVAL, "the user name `%s` is reserved", s);
	return 0;
}

static bool ends_with(const char *s, size_t n, const char *suffix)
{
	size_t k = strlen(suffix);

	return n >= k && !strncasecmp(s + n - k, suffix, k);
}

int name_check_space(const char *s, struct err *err)
{
	size_t n = strlen(s);

	if (n < 1 || n > NAME_SPACE_MAX)
		return err_text(err, EINVAL, "a Space's name has 1 to %d characters", NAME_SPACE_MAX);
	for (size_t i = 0; i < n; i++)
		if (!is_alnum(s[i]) && !strchr("._-", s[i]))
			return err_text(err, EINVAL,
					"a Space's name has only letters A-Z, a-z, digits, `.`, `_` and `-`");
	if (strchr("-.", s[0]) || strchr("-.", s[n - 1]))
		return err_text(err, EINVAL, "a Space's name neither begins nor ends with `-` or `.`");
	if (strstr(s, "--") || strstr(s, ".."))
		return err_text(err, EINVAL, "a Space's name has no `--` and no `..`");
	if (ends_with(s, n, ".git") || ends_with(s, n, ".lock"))
		return err_text(err, EINVAL, "a Space's name does not end in `.git` or `.lock`");
	return 0;
}

/* Appends `s` folded to a host label; a run of other characters becomes one '-', so that no label ever has "--" at its
 * third place, where IDNA puts "xn--" (RFC 5891 4.2.3.1). Returns the new length. */
static size_t fold(char *out, size_t len, size_t max, const char *s)
{
	for (; *s && len < max; s++) {
		if (is_alnum(*s))
			out[len++] = to_lower(*s);
		else if (len > 0 && out[len - 1] != '-')
			out[len++] = '-';
	}
	return len;
}

void name_host_label(const char *owner, const char *name, bool salted, char out[NAME_LABEL_MAX + 1])
{
	char all[NAME_USER_MAX + NAME_SPACE_MAX + 2];
	size_t n, owner_len;
	const size_t salt = 9; /* "-" and 8 digits */

	n = fold(all, 0, sizeof(all) - 1, owner);
	n = fold(all, n, sizeof(all) - 1, "-");
	owner_len = n;
	n = fold(all, n, sizeof(all) - 1, name);
	/* A name such as "_" leaves nothing: salted, or the label would be the owner's own name. */
	if (n == owner_len || n > NAME_LABEL_MAX)
		salted = true;
	if (salted && n > NAME_LABEL_MAX - salt)
		n = NAME_LABEL_MAX - salt;
	while (n > 0 && all[n - 1] == '-')
		n--;
	if (salted) {
		crypto_generichash_state st;
		unsigned char hash[crypto_generichash_BYTES_MIN];

		crypto_generichash_init(&st, NULL, 0, sizeof(hash));
		crypto_generichash_update(&st, (const unsigned char *)owner, strlen(owner));
		crypto_generichash_update(&st, (const unsigned char *)"/", 1);
		crypto_generichash_update(&st, (const unsigned char *)name, strlen(name));
		crypto_generichash_final(&st, hash, sizeof(hash));
		all[n++] = '-';
		sodium_bin2hex(all + n, salt, hash, 4);
		n += 8;
	}
	memcpy(out, all, n);
	out[n] = '\0';
}

/* Takes the segment that begins at `*p` behind a '/'; false when it is too long or has a NUL. */
static bool segment(const char **p, const char *end, char *dst, size_t max)
{
	const char *slash;
	size_t n;

	if (*p == end || **p != '/')
		return false;
	(*p)++;
	slash = memchr(*p, '/', (size_t)(end - *p));
	n = (size_t)((slash ? slash : end) - *p);
	if (n > max || memchr(*p, '\0', n))
		return false;
	memcpy(dst, *p, n);
	dst[n] = '\0';
	*p += n;
	return true;
}

bool name_split_repo_path(const char *path, size_t len, char owner[NAME_USER_MAX + 1], char space[NAME_SPACE_MAX + 1],
			  const char **rest, size_t *rest_len)
{
	const char *end = path + len, *p = path + 7;
	char name[NAME_SPACE_MAX + 5];
	struct err err = ERR_INIT;
	size_t n;

	if (len < 7 || memcmp(path, "/spaces", 7) != 0)
		return false;
	if (!segment(&p, end, owner, NAME_USER_MAX) || !segment(&p, end, name, sizeof(name) - 1))
		return false;
	n = strlen(name);
	if (n > 4 && !memcmp(name + n - 4, ".git", 4))
		name[n -= 4] = '\0';
	if (name_check_user(owner, &err) < 0 || name_check_space(name, &err) < 0)
		return false;
	memcpy(space, name, n + 1);
	*rest = p;
	*rest_len = (size_t)(end - p);
	return true;
}
